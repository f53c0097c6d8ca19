"""A secret key that each process makes."""

import secrets

from flask import Flask, session

app = Flask(__name__)
app.secret_key = secrets.token_hex(16)


@app.post("/login/<user>")
def login(user):
    session["user"] = user
    return "", 204


@app.get("/me")
def me():
    return session.get("user", "nobody")


SCRIPT = [("POST", "/login/ann"), ("GET", "/me")]
SUSPECT = "SECRET_KEY"
