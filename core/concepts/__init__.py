"""Concepts and their trained versions."""
