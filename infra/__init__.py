"""What surrounds the system and uses it only from outside."""
