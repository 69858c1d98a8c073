"""What prefix caches hold: an index of it, and how far placement follows it."""
