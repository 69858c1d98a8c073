"""Counts and snapshots for clients that watch the fleet."""
