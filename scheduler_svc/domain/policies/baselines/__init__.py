"""Simple policies of other systems, for comparison with the built-in ones."""
