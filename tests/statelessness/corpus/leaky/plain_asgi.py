"""An ASGI function with a set."""

SEEN = set()


async def app(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError
    SEEN.add(scope["path"])
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": str(len(SEEN)).encode()})


SCRIPT = [("GET", "/a"), ("GET", "/b")]
SUSPECT = "SEEN"
