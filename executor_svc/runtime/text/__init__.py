"""Makes text from token ids."""
