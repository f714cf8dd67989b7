"""Tenants, their API keys and their share of the pools."""
