"""Fixtures for the stores' tests."""

from support.postgres import own_postgres, postgres, spare_postgres
from support.valkey import own_valkey, valkey

__all__ = ["own_postgres", "own_valkey", "postgres", "spare_postgres", "valkey"]
