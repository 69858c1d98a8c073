"""How many instances there are to be, worked out over time."""
