"""Policies: an ordering and an objective under one name, and the choice among them."""
