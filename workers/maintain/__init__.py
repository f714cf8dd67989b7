"""What keeps the queue and the webhooks moving: small loops, run by one leader at a time."""
