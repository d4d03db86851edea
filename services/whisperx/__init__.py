"""Words with exact times and speakers, by whisperX and pyannote.audio."""
