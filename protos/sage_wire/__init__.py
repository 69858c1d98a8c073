"""What both ends of the wire agree on beside the .proto files.  Imports nothing of either end."""
