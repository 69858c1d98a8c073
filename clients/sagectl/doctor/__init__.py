"""What ``sagectl doctor`` looks at."""
