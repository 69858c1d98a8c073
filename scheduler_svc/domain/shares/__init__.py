"""Shares of tenants: how capacity is divided between those whose requests wait."""
