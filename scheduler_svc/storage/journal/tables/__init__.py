"""The journal's tables, one noun a file."""
