"""What both ends of the wire agree on beside the protos.  Imports nothing of either end."""
