"""The live screen of ``sagectl top``."""
