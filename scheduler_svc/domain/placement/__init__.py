"""Where a request goes: filter, score, pick."""
