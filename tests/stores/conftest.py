"""Fixtures for the stores' tests."""

from support.valkey import own_valkey, valkey

__all__ = ["own_valkey", "valkey"]
