"""Jobs: their states, their queue and their history."""
