"""What the executor reports about itself."""
