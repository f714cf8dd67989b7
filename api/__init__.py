"""The HTTP API: it parses, calls one use case and answers. Imports no torch and never talks to the broker."""
