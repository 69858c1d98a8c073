"""The command line of the SAGE control plane.  Start at ``cli``."""
