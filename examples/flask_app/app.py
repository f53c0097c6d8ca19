"""A small shop: the cart is in the session, prices come from an upstream. Any replica serves any request.

What makes it so is one line, `unsticky = Unsticky(app)`, and unsticky.toml.
"""

from __future__ import annotations

import os
from typing import Any, cast

import httpx
from flask import Flask, flash, jsonify, redirect, render_template, request, session, url_for
from flask.typing import ResponseReturnValue

from unsticky.flask import FlaskSession, Unsticky

app = Flask(__name__)
app.config.update(
    # Every replica needs the same key: it signs the session's cookie.
    SECRET_KEY=os.environ.get("SECRET_KEY", "for development only: set SECRET_KEY"),
    SESSION_COOKIE_SAMESITE="Lax",
)
unsticky = Unsticky(app)
REPLICA = os.environ.get("REPLICA", f"process {os.getpid()}")


@app.get("/")
def shop() -> ResponseReturnValue:
    """The page for people: products, cart, login."""
    answer = unsticky.client.get("http://catalog/items")  # "catalog" is a pool in unsticky.toml
    items = answer.raise_for_status().json()
    return render_template("shop.html", items=items, replica=REPLICA, upstream=answer.headers["x-catalog"], **cart())


@app.post("/cart")
def add() -> ResponseReturnValue:
    """One more of an item. The nested change of the session is found and saved."""
    sku = request.form["sku"]
    chosen = session.setdefault("cart", {})
    chosen[sku] = chosen.get(sku, 0) + 1
    return redirect(url_for("shop"), 303)


@app.post("/login")
def login() -> ResponseReturnValue:
    """The owner changes, so the session gets a new token: one planted before the login is worth nothing after it."""
    cast(FlaskSession, session).owner = request.form["user"]
    session["user"] = request.form["user"]
    flash(f"Welcome, {session['user']}.")
    return redirect(url_for("shop"), 303)


@app.post("/checkout")
def checkout() -> ResponseReturnValue:
    """Sell what is in the cart."""
    flash(f"Thank you! You paid {cart()['total']:.2f}.")
    session.pop("cart", None)
    return redirect(url_for("shop"), 303)


@app.post("/logout")
def logout() -> ResponseReturnValue:
    """End the session, here and on every other replica."""
    session.clear()
    return redirect(url_for("shop"), 303)


@app.get("/api/cart")
def read_cart() -> ResponseReturnValue:
    """The cart as JSON, with today's prices."""
    return jsonify(cart())


@app.put("/api/cart/<sku>")
def put_in_cart(sku: str) -> ResponseReturnValue:
    """Set how many of an item are in the cart: `{"quantity": 2}`."""
    session.setdefault("cart", {})[sku] = int(request.get_json()["quantity"])
    return jsonify(session["cart"])


def cart() -> dict[str, Any]:
    """What the visitor chose, and what it costs."""
    chosen: dict[str, int] = session.get("cart", {})
    prices = {sku: price(sku) for sku in chosen}
    total = sum(prices[sku] * quantity for sku, quantity in chosen.items())
    return {"cart": chosen, "prices": prices, "total": total, "user": session.get("user")}


def price(sku: str) -> float:
    """The price now. An item that the catalog does not know any more costs nothing, and is not sold."""
    answer = unsticky.client.get(f"http://catalog/items/{sku}")
    return float(answer.json()["price"]) if answer.status_code == 200 else 0.0


@app.errorhandler(httpx.HTTPError)
def no_prices(error: httpx.HTTPError) -> ResponseReturnValue:
    """Every endpoint of the catalog is away: unsticky's errors are httpx's too."""
    app.logger.warning("the catalog does not answer: %s", error)
    return "The prices are not available for the moment. Your cart is safe.\n", 503


@app.after_request
def tell_replica(response: Any) -> Any:
    """So that you can see who answered."""
    response.headers["X-Replica"] = REPLICA
    return response


def trace_requests() -> None:
    """Send spans to OTEL_EXPORTER_OTLP_ENDPOINT, with one SERVER span per request.

    In your app opentelemetry-instrumentation-flask does this; unsticky adds the spans of the outbound attempts.
    """
    from opentelemetry import propagate, trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    tracer, inner = trace.get_tracer("shop"), app.wsgi_app

    def traced(environ: dict[str, Any], start_response: Any) -> Any:
        caller = propagate.extract({k[5:].replace("_", "-").lower(): v for k, v in environ.items() if k[:5] == "HTTP_"})
        name, attributes = environ["REQUEST_METHOD"], {"url.path": environ["PATH_INFO"], "unsticky.replica": REPLICA}
        with tracer.start_as_current_span(name, caller, kind=trace.SpanKind.SERVER, attributes=attributes):
            return inner(environ, start_response)

    app.wsgi_app = traced  # type: ignore[method-assign]


if os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
    trace_requests()
