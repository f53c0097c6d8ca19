"""One-time tokens that only one process knows."""

import secrets

from flask import Flask, jsonify, request

app = Flask(__name__)
app.secret_key = "the same for all"

TOKENS = set()


@app.post("/token")
def token():
    made = secrets.token_hex(8)
    TOKENS.add(made)
    return jsonify(token=made)


@app.post("/use")
def use():
    given = request.get_json()["token"]
    if given not in TOKENS:
        return "unknown", 403
    TOKENS.discard(given)
    return "fine"


SCRIPT = [
    ("POST", "/token"),
    ("POST", "/use", lambda seen: {"json": {"token": seen[-1].json()["token"]}}),
]
SUSPECT = "TOKENS"
