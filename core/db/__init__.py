"""What every table and session has in common."""
