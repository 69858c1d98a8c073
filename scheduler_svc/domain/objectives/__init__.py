"""Where a request goes: the objectives that choose among instances."""
