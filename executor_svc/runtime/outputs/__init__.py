"""What attempts put out, and how it is sent."""
