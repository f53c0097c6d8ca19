"""Reads the records that Flask-Session keeps in Redis or Valkey, to take them over. It changes nothing there."""

from __future__ import annotations

import redis

from ..errors import Problem, SettingsError, StoreError


class FlaskSessionRecords:
    """For threads; forks are fine. `timeout` in seconds, of each socket operation. Raises SettingsError."""

    def __init__(self, url: str, timeout: float) -> None:
        if url.partition("://")[0] not in ("redis", "rediss", "valkey", "valkeys"):
            problem = Problem("session.migrate_flask_session", "is the URL of one Redis: redis:// or rediss://")
            raise SettingsError("session", [problem])
        self._client: redis.Redis = redis.Redis.from_url(
            url.replace("valkey", "redis", 1), socket_timeout=timeout, socket_connect_timeout=timeout
        )

    def load(self, key: str) -> bytes | None:
        """The record's bytes. Raises StoreError."""
        try:
            data = self._client.get(key)
        except redis.ResponseError as error:
            if str(error).startswith("WRONGTYPE"):  # whatever the client has named, it is no session
                return None
            raise StoreError(f"Flask-Session's Redis: {type(error).__name__}") from None
        except redis.RedisError as error:
            raise StoreError(f"Flask-Session's Redis: {type(error).__name__}") from None
        return data if isinstance(data, bytes) else None

    def close(self) -> None:
        self._client.close()
