"""A new UUID and a nonce for each request."""

import secrets
import uuid

from flask import Flask, jsonify

app = Flask(__name__)
app.secret_key = "the same for all"


@app.get("/")
def home():
    return jsonify(id=str(uuid.uuid4()), nonce=secrets.token_urlsafe(8))


SCRIPT = [("GET", "/"), ("GET", "/"), ("GET", "/")]
