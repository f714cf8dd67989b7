"""Whose job is next, in a pool of workers: the fair share, its standings in Postgres, and what operators may turn."""
