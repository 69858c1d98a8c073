"""The specification of a fleet: what ``fleet.yaml`` says."""
