"""What was promised (issue "Sessions", Speed)."""

from __future__ import annotations

from math import inf

from reporting.goals import Goal

from session_costs import asgi, at_once, endtoend, wsgi
from session_costs.measure import Figures, trips

STARLETTE = "Starlette's signed cookie"


def _cost(part: str, ours: str, peer: str, mode: str, limit: float) -> Goal[Figures]:
    def ratio(figures: Figures) -> float:
        return figures.microseconds[part, ours, mode] / figures.microseconds[part, peer, mode]

    return Goal(f"{part}, {ours}, {mode}: time, beside {peer}", "x", limit, ratio)


def _trips(part: str, ours: str, mode: str, limit: float) -> Goal[Figures]:
    return Goal(
        f"{part}, {ours}, {mode}: store round trips", "", limit, lambda figures: trips(figures.trips[part, ours, mode])
    )


def _rate(kind: str, ours: str, peer: str, limit: float) -> Goal[Figures]:
    def ratio(figures: Figures) -> float:
        return figures.per_second[kind, ours, "read"] / (figures.per_second[kind, peer, "read"] or inf)

    return Goal(f"{kind}, {ours}, read: requests per second, beside {peer}", "x", limit, ratio, at_most=False)


def _microseconds(part: str, ours: str, mode: str, limit: float) -> Goal[Figures]:
    return Goal(f"{part}, {ours}, {mode}: time", " us", limit, lambda figures: figures.microseconds[part, ours, mode])


SQLITE, REDIS = "unsticky SQLite", "unsticky Redis"
GOALS = (
    _cost("asgi", SQLITE, STARLETTE, "untouched", 0.1),
    _cost("asgi", SQLITE, STARLETTE, "read", 0.67),
    _cost("asgi", SQLITE, STARLETTE, "write", 0.67),
    _cost("asgi", REDIS, asgi.STAR_ON_USE, "read", 0.36),
    _cost("asgi", REDIS, asgi.STAR_ON_USE, "write", 0.36),
    _cost("asgi", REDIS, asgi.STAR_AUTOLOAD, "read", 0.36),
    _cost(at_once.PART, REDIS, asgi.STAR_ON_USE, "read", 0.36),
    _cost(at_once.PART, REDIS, asgi.STAR_ON_USE, "write", 0.36),
    _trips("asgi", REDIS, "read", 1),
    _trips("asgi", REDIS, "write", 2),
    _trips("asgi", REDIS, "new", 1),
    _trips("flask", SQLITE, "untouched", 0),
    _microseconds("flask", SQLITE, "untouched", 3.0),
    _cost("flask", SQLITE, wsgi.COOKIE, "read", 0.25),
    _cost("flask", SQLITE, wsgi.COOKIE, "write", 0.25),
    _cost("flask", REDIS, wsgi.PEER_QUIET, "read", 0.83),
    _cost("flask", REDIS, wsgi.PEER_QUIET, "write", 0.71),
    _trips("flask", REDIS, "untouched", 0),
    _trips("flask", REDIS, "read", 1),
    _trips("flask", REDIS, "write", 2),
    _trips("flask", REDIS, "new", 1),
    _cost("postgres", "unsticky", "pooled psycopg", "read", 1.3),
    _cost("postgres", "unsticky", "pooled psycopg", "write", 1.3),
    _cost("postgres", "unsticky async", "pooled psycopg async", "read", 1.3),
    _cost("postgres", "unsticky async", "pooled psycopg async", "write", 1.3),
    _trips("postgres", "unsticky", "read", 1),
    _trips("postgres", "unsticky", "write", 1),
    _rate("uvicorn", endtoend.SQLITE, endtoend.COOKIE, 1.3),
    _rate("uvicorn", endtoend.REDIS, endtoend.STAR, 4.5),
    _rate("gunicorn", endtoend.SQLITE, endtoend.COOKIE, 1.3),
)
