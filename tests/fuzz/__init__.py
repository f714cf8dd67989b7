"""What strangers may send: requests that a generator thinks of, and damaged pictures."""
