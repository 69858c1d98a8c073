"""Fits the engine model to what a scheduler recorded."""
