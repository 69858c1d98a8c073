"""A scheduler and some executors on one machine, started, watched and stopped together.  Start at ``__main__``."""
