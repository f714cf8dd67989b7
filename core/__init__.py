"""The domain and its adapters: no HTTP framework, no torch."""
