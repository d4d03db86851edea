"""Whisper by CTranslate2, behind OpenAI's API."""
