"""What the executor tells about itself."""
