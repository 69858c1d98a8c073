"""Requests: from the door to their one end, and what is known of them."""
