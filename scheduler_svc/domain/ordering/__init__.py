"""Who goes next: the orderings of waiting requests."""
