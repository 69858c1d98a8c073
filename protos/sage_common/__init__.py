"""What both services share that has nothing to do with the wire: configuration, addresses, TLS files, clocks, tasks."""
