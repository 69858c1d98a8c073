"""What the scheduler tells about itself."""
