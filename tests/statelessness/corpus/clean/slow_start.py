"""A limit of one call in a tenth of a second, in the session. A replica that has to start first is never too fast."""

import asyncio
import time
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from unsticky.starlette import UnstickyMiddleware


@asynccontextmanager
async def lifespan(_):
    await asyncio.sleep(0.2)
    yield


async def limited(request):
    now = time.time()
    early = now - request.session.get("latest", 0.0) < 0.1
    request.session["latest"] = now
    return PlainTextResponse("too many", 429) if early else PlainTextResponse("fine")


app = Starlette(routes=[Route("/", limited)], lifespan=lifespan, middleware=[Middleware(UnstickyMiddleware)])
SCRIPT = [("GET", "/"), ("GET", "/")]
