"""Sessions of clients: all requests of one process over one stream, their tokens in frames."""
