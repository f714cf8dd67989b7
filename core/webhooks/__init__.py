"""Webhook endpoints, deliveries and their signatures."""
