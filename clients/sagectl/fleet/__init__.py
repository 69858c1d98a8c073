"""How ``sagectl fleet`` reads a file, and shows a fleet."""
