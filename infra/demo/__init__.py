"""The demo: a customer's first hour with Lockstep, over HTTP and through the SDK, judged by numbers."""
