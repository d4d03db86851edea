"""Docs of every service for people, from a cache: reading them wakes nothing."""
