"""Alembic migrations, from the first table on. Run by ``lockstepd migrate``."""
