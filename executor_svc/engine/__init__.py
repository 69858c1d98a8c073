"""The engines that implement the port ``runtime.engine_port``."""
