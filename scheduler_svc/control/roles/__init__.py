"""Automatic roles over time."""
