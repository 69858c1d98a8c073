"""The engines behind the port ``runtime.engine_port``."""
