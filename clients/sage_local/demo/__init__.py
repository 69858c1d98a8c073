"""Demonstrations: five policies under one load, and prefill/decode separation.  Start at ``policy_demo``."""
