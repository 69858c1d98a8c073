"""The output of attempts, and how it is sent."""
