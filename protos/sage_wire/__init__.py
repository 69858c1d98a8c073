"""Agreements between the two ends of the wire that a .proto file cannot express.  Imports nothing of either end."""
