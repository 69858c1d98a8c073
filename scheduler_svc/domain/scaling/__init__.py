"""How many instances each model needs, and why."""
