"""The simulated engine: breadth and speed in tests, never the only proof."""
