"""Engines that sleep: their weights in the host's memory, their device's memory for others."""
