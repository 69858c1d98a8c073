"""A fleet on this machine: processes under a supervisor."""
