"""Any replica can serve any request.

Sessions go to a shared store, outbound calls go over pools of endpoints, and every attempt is traced. Start with
`unsticky.flask.Unsticky` or `unsticky.starlette.UnstickyMiddleware`; outside of a web app, with `Pools`.
"""

from __future__ import annotations

__version__ = "0.1.0"
