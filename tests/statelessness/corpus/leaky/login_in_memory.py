"""Sessions of one's own, in a dict."""

import secrets

from flask import Flask, make_response, request

app = Flask(__name__)
app.secret_key = "the same for all"

LOGGED_IN = {}


@app.post("/login/<user>")
def login(user):
    key = secrets.token_hex(8)
    LOGGED_IN[key] = user
    response = make_response("", 204)
    response.set_cookie("who", key)
    return response


@app.get("/me")
def me():
    return LOGGED_IN.get(request.cookies.get("who", ""), "nobody")


SCRIPT = [("POST", "/login/ann"), ("GET", "/me")]
SUSPECT = "LOGGED_IN"
