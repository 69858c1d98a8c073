"""Code of both services that does not concern the wire: configuration, addresses, TLS files, clocks, tasks."""
