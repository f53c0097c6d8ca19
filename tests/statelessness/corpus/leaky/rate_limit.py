"""A rate limit that counts in the process."""

from flask import Flask, request

app = Flask(__name__)
app.secret_key = "the same for all"

CALLS = {}


@app.get("/")
def limited():
    who = request.remote_addr
    CALLS[who] = CALLS.get(who, 0) + 1
    if CALLS[who] > 2:
        return "too many", 429
    return "fine"


SCRIPT = [("GET", "/"), ("GET", "/"), ("GET", "/"), ("GET", "/")]
SUSPECT = "CALLS"
