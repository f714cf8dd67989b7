"""Benchmarks: what is promised, measured. `python -m tests.benchmarks.NAME [--json FILE] [--quick]`."""
