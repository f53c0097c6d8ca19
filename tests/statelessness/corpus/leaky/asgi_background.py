"""A background task that fills a list."""

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import JSONResponse
from starlette.routing import Route

DONE = []


async def start(request):
    return JSONResponse({}, 202, background=BackgroundTask(DONE.append, "job"))


async def done(request):
    return JSONResponse(DONE)


app = Starlette(routes=[Route("/start", start, methods=["POST"]), Route("/done", done)])

SCRIPT = [("POST", "/start"), ("GET", "/done")]
SUSPECT = "DONE"
