"""The servers that come as wheels, and the supervisor that runs the whole system on one machine."""
