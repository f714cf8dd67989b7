"""Base models and students."""
