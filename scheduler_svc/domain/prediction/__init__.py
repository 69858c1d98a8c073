"""How long a request will take on an instance, learned from what engines report."""
