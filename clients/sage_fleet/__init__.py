"""One description of a fleet, run on this machine, on Ray or on Kubernetes."""
