"""The executor's log lines, metrics and traces."""
