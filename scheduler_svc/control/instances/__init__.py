"""Instances: the executors' sessions, their leases and what follows when one goes."""
