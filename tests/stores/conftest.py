"""Fixtures for the stores' tests."""

from uuid import uuid4

import pytest

from support.memcached import memcached, own_memcached
from support.postgres import Postgres, own_postgres, postgres, spare_postgres
from support.valkey import own_valkey, valkey

__all__ = ["memcached", "own_memcached", "own_postgres", "own_valkey", "postgres", "spare_postgres", "valkey"]


@pytest.fixture
def key() -> str:
    """A session's key that nobody uses."""
    return f"v1:{uuid4().hex}"


@pytest.fixture
def schema(postgres: Postgres) -> str:
    """A schema's name that nobody uses."""
    return f"s{uuid4().hex}"
