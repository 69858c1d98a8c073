"""Prefill/decode separation: when to split a request, between which instances, and whether they can hand over."""
