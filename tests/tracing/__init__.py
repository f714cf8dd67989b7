"""Traces as a collector receives them."""
