"""A tiny Whisper that hears spoken digits, and the scripts that make and measure it."""
