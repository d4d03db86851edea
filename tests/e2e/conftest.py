"""Fixtures of the stories."""

from tests.client import client

__all__ = ["client"]
