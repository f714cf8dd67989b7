"""Uploaded and produced objects."""
