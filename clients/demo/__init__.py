"""A demonstration: real engines, five policies, one mixed load, and what the numbers show.  Start at ``__main__``."""
