"""Prefill/decode separation: when to split a request, and which instances can hand KV over."""
