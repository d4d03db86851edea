"""A tiny wav2vec2 that knows when spoken English digits begin and end, and how it was made."""
