"""The cookies of the clients that `Pools` makes."""

from __future__ import annotations

from http.cookiejar import CookieJar
from typing import Any


class Jar(CookieJar):
    """The standard library's, which takes no response apart that sets no cookie: most of a pool's set none.

    For httpx and httpx2, which show each response to the jar of their client. It takes an eighth of their own time.
    """

    def extract_cookies(self, response: Any, request: Any) -> None:
        """`response` is what the library shows of its own, which it calls `response` as well."""
        headers = getattr(getattr(response, "response", None), "headers", None)
        if headers is None or "set-cookie" in headers or "set-cookie2" in headers:
            super().extract_cookies(response, request)
