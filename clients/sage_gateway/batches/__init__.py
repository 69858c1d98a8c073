"""/v1/files and /v1/batches, passed on to the scheduler."""
