"""Keeps a session with a scheduler, and makes the reports that it sends."""
