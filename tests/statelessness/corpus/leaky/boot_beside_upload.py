"""A cookie that is signed with a key of the process, beside a file that a request wrote."""

import hmac
import secrets
from pathlib import Path

from flask import Flask, jsonify, make_response, request

app = Flask(__name__)
KEY = secrets.token_bytes(16)


def signed(user):
    return f"{user}.{hmac.new(KEY, user.encode(), 'sha256').hexdigest()}"


@app.post("/login/<user>")
def login(user):
    Path("last-login.txt").write_text(user)
    response = make_response("hello")
    response.set_cookie("user", signed(user))
    return response


@app.get("/me")
def me():
    cookie = request.cookies.get("user", "")
    user = cookie.partition(".")[0]
    return jsonify(user=user if hmac.compare_digest(cookie, signed(user)) else None)


SCRIPT = [("POST", "/login/ann"), ("GET", "/me")]
SUSPECT = "boot_beside_upload:KEY"
