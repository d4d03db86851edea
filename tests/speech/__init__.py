"""Tiny speech models and recordings whose truth is known, for tests of speech services."""
