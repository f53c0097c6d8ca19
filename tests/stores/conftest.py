"""Fixtures for the stores' tests."""

from support.memcached import memcached, own_memcached
from support.postgres import own_postgres, postgres, spare_postgres
from support.valkey import own_valkey, valkey

__all__ = ["memcached", "own_memcached", "own_postgres", "own_valkey", "postgres", "spare_postgres", "valkey"]
