"""Requests that are sent twice and must be carried out once."""
