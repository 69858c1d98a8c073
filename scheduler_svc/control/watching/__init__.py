"""What is counted and shown of the fleet."""
