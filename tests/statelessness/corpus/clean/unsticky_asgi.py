"""Starlette with unsticky's session."""

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.routing import Route

from unsticky.starlette import UnstickyMiddleware


async def add(request):
    request.session.setdefault("cart", []).append(request.path_params["item"])
    return JSONResponse(None)


async def cart(request):
    return JSONResponse(request.session.get("cart", []))


app = Starlette(
    routes=[Route("/add/{item}", add, methods=["POST"]), Route("/cart", cart)],
    middleware=[Middleware(UnstickyMiddleware, settings={})],
)

SCRIPT = [("POST", "/add/tea"), ("POST", "/add/milk"), ("GET", "/cart")]
