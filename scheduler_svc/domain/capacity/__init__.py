"""What is free and what is reserved on each instance, in slots and KV tokens."""
