"""One process, one engine, offered to a scheduler."""
