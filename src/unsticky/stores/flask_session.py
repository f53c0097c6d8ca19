"""Reads the records that Flask-Session keeps in Redis or Valkey, to take them over. It changes nothing there."""

from __future__ import annotations

from ..errors import StoreError
from .redis import route
from .redis_access import Access
from .redis_pool import RedisPool
from .redis_resp import Command, pack
from .redis_url import redis_target

_ANOTHER_TYPE = "(WRONGTYPE)"


class FlaskSessionRecords:
    """For threads; forks are fine. `url` as of our own Redis stores; `timeout` in seconds. Raises ValueError."""

    def __init__(self, url: str, timeout: float) -> None:
        target = redis_target(url)
        self._pool = RedisPool(route(target), Access(target), timeout, 0)

    def load(self, key: str) -> bytes | None:
        """The record's bytes. Raises StoreError."""
        try:
            data = self._pool.ask(Command(pack("GET", key), key.encode(), repeatable=True))
        except StoreError as error:
            if _ANOTHER_TYPE in str(error):  # whatever the client has named, it is no session
                return None
            raise
        return data if isinstance(data, bytes) else None

    def close(self) -> None:
        self._pool.close()
