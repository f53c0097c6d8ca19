"""State on app.state."""

from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route


async def visit(request):
    request.app.state.visits = getattr(request.app.state, "visits", 0) + 1
    return JSONResponse({"visits": request.app.state.visits})


app = Starlette(routes=[Route("/", visit)])

SCRIPT = [("GET", "/")]
SUSPECT = "visits"
