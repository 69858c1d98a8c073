"""Instances: the executors' sessions, leases, cool-downs and drains."""
