"""What each instance has promised and has free, in slots and KV tokens."""
