"""A small shop: the cart is in the session, prices come from an upstream. Any replica serves any request.

What makes it so is one line, `Middleware(UnstickyMiddleware)`, and unsticky.toml.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qsl

import httpx
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.templating import Jinja2Templates
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from unsticky.starlette import Session, UnstickyMiddleware

REPLICA = os.environ.get("REPLICA", f"process {os.getpid()}")
templates = Jinja2Templates(Path(__file__).with_name("templates"))


async def shop(request: Request) -> Response:
    """The page for people: products, cart, login."""
    answer = await request.state.unsticky.client.get("http://catalog/items")  # "catalog" is a pool in unsticky.toml
    page = {"items": answer.raise_for_status().json(), "replica": REPLICA, "upstream": answer.headers["x-catalog"]}
    messages = request.session.pop("messages", [])
    return templates.TemplateResponse(request, "shop.html", page | {"messages": messages} | await cart(request))


async def add(request: Request) -> Response:
    """One more of an item. The nested change of the session is found and saved."""
    sku = (await form(request))["sku"]
    chosen = request.session.setdefault("cart", {})
    chosen[sku] = chosen.get(sku, 0) + 1
    return to_shop()


async def login(request: Request) -> Response:
    """The owner changes, so the session gets a new token: one planted before the login is worth nothing after it."""
    user = (await form(request))["user"]
    request.session["user"] = cast(Session, request.session).owner = user
    return to_shop(request, f"Welcome, {request.session['user']}.")


async def checkout(request: Request) -> Response:
    """Sell what is in the cart."""
    total = (await cart(request))["total"]
    request.session.pop("cart", None)
    return to_shop(request, f"Thank you! You paid {total:.2f}.")


async def logout(request: Request) -> Response:
    """End the session, here and on every other replica."""
    request.session.clear()
    return to_shop()


async def read_cart(request: Request) -> Response:
    """The cart as JSON, with today's prices."""
    return JSONResponse(await cart(request))


async def put_in_cart(request: Request) -> Response:
    """Set how many of an item are in the cart: `{"quantity": 2}`."""
    chosen = request.session.setdefault("cart", {})
    chosen[request.path_params["sku"]] = int((await request.json())["quantity"])
    return JSONResponse(chosen)


async def cart(request: Request) -> dict[str, Any]:
    """What the visitor chose, and what it costs."""
    chosen: dict[str, int] = request.session.get("cart", {})
    prices = {sku: await price(request, sku) for sku in chosen}
    total = sum(prices[sku] * quantity for sku, quantity in chosen.items())
    return {"cart": chosen, "prices": prices, "total": total, "user": request.session.get("user")}


async def price(request: Request, sku: str) -> float:
    """The price now. An item that the catalog does not know any more costs nothing, and is not sold."""
    answer = await request.state.unsticky.client.get(f"http://catalog/items/{sku}")
    return float(answer.json()["price"]) if answer.status_code == 200 else 0.0


async def no_prices(request: Request, error: Exception) -> Response:
    """Every endpoint of the catalog is away: unsticky's errors are httpx's too."""
    print(f"the catalog does not answer: {error}", file=sys.stderr)
    return PlainTextResponse("The prices are not available for the moment. Your cart is safe.\n", 503)


async def form(request: Request) -> dict[str, str]:
    """The fields of a form; Starlette's own `request.form()` wants one more package."""
    return dict(parse_qsl((await request.body()).decode(), strict_parsing=True))


def to_shop(request: Request | None = None, message: str = "") -> Response:
    """Back to the page, which shows the message once."""
    if request is not None:
        request.session.setdefault("messages", []).append(message)
    return RedirectResponse("/", 303)


class TellReplica:
    """So that you can see who answered: X-Replica on every response."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def telling(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-replica", REPLICA.encode())]
            await send(message)

        await self.app(scope, receive, telling)


def trace_requests(app: ASGIApp) -> ASGIApp:
    """Send spans to OTEL_EXPORTER_OTLP_ENDPOINT, with one SERVER span per request.

    In your app opentelemetry-instrumentation-starlette does this; unsticky adds the spans of the outbound attempts.
    """
    from opentelemetry import propagate, trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    tracer = trace.get_tracer("shop")

    async def traced(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        caller = propagate.extract({name.decode(): value.decode("latin-1") for name, value in scope["headers"]})
        attributes = {"url.path": scope["path"], "unsticky.replica": REPLICA}
        with tracer.start_as_current_span(scope["method"], caller, kind=trace.SpanKind.SERVER, attributes=attributes):
            await app(scope, receive, send)

    return traced


ROUTES = [
    Route("/", shop),
    Route("/cart", add, methods=["POST"]),
    Route("/login", login, methods=["POST"]),
    Route("/checkout", checkout, methods=["POST"]),
    Route("/logout", logout, methods=["POST"]),
    Route("/api/cart", read_cart),
    Route("/api/cart/{sku}", put_in_cart, methods=["PUT"]),
]
app: ASGIApp = Starlette(
    routes=ROUTES,
    middleware=[Middleware(TellReplica), Middleware(UnstickyMiddleware)],
    exception_handlers={httpx.HTTPError: no_prices},
)
if os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
    app = trace_requests(app)
