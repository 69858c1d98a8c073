"""Requests, from admission to their one end."""
