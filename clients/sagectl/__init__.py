"""The command line ``sagectl``.  ``cli`` lists its commands."""
