"""Attempts: one try at one leg of a request on one instance."""
