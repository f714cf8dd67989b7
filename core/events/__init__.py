"""The feed of a tenant's events."""
