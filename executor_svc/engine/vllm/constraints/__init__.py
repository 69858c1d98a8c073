"""Compiles constraints in a process of their own before the engine gets them, within bounds of time and memory."""
