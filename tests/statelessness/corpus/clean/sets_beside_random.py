"""Sets, whose order changes with the hash seed, beside what is another value each time."""

import secrets
from uuid import uuid4

from flask import Flask, jsonify

app = Flask(__name__)
app.secret_key = "the same for all"

NAMES = {"ann", "bob", "cid"}


@app.get("/page")
def page():
    return f"<p n={secrets.token_hex(8)}>" + ", ".join(NAMES) + "</p>"


@app.get("/objects")
def objects():
    return jsonify([{"name": name, "id": str(uuid4())} for name in NAMES])


@app.get("/header")
def header():
    return "", 200, {"Allow-Tags": ", ".join(NAMES), "X-Id": str(uuid4())}


SCRIPT = [("GET", "/page"), ("GET", "/objects"), ("GET", "/header")] * 2
