"""Wake-ups, time limits and the event loop's lag."""
