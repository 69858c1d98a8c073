"""Usage records of requests that ended: gathered, and handed to the journal and to a file."""
