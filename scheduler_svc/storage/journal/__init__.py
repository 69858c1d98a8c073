"""The journal: what outlives a scheduler, in SQLite or PostgreSQL."""
