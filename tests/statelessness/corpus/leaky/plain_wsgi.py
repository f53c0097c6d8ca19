"""A WSGI function with a counter."""

COUNT = [0]


def app(environ, start_response):
    COUNT[0] += 1
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(COUNT[0]).encode()]


SCRIPT = [("GET", "/"), ("GET", "/")]
SUSPECT = "COUNT"
