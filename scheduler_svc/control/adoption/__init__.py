"""Going on with what an earlier scheduler began."""
