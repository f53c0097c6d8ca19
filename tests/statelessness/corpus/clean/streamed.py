"""A streamed response."""

from starlette.applications import Starlette
from starlette.responses import StreamingResponse
from starlette.routing import Route


async def numbers():
    for number in range(5):
        yield f"{number}\n"


async def stream(request):
    return StreamingResponse(numbers(), media_type="text/plain")


app = Starlette(routes=[Route("/", stream)])

SCRIPT = [("GET", "/"), ("GET", "/")]
