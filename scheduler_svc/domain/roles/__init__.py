"""Automatic roles: which instances change between prefill and decode, and why."""
