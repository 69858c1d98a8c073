"""Keeps a session with a scheduler, and makes what it reports."""
