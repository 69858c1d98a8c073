"""Attempts, from their Assign message to their end."""
