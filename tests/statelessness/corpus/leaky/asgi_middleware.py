"""A counter in a middleware's attribute."""

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route


class Counting:
    def __init__(self, app):
        self.app = app
        self.count = 0

    async def __call__(self, scope, receive, send):
        self.count += 1

        async def counted(message):
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-count", str(self.count).encode())]
            await send(message)

        await self.app(scope, receive, counted)


async def home(request):
    return PlainTextResponse("home")


app = Starlette(routes=[Route("/", home)], middleware=[Middleware(Counting)])

SCRIPT = [("GET", "/"), ("GET", "/")]
SUSPECT = "count"
