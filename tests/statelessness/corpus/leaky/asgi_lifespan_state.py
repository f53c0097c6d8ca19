"""State that the lifespan made."""

from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route


@asynccontextmanager
async def lifespan(app):
    yield {"queue": []}


async def push(request):
    request.state.queue.append(await request.json())
    return JSONResponse(len(request.state.queue))


app = Starlette(routes=[Route("/push", push, methods=["POST"])], lifespan=lifespan)

SCRIPT = [("POST", "/push", {"json": 1}), ("POST", "/push", {"json": 2})]
SUSPECT = "queue"
