"""Attempts from their Assign to their end."""
