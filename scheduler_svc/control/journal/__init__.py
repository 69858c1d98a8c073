"""Ports to the journal, and what control keeps there."""
