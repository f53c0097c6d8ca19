"""A token of the session, checked by the next request."""

import secrets

from flask import Flask, request, session

app = Flask(__name__)
app.secret_key = "the same for all"


@app.get("/form")
def form():
    session.setdefault("csrf", secrets.token_hex(8))
    return f'<form><input name="csrf" value="{session["csrf"]}"></form>'


@app.post("/send")
def send():
    return "fine" if request.form.get("csrf") == session.get("csrf") else ("forged", 403)


SCRIPT = [
    ("GET", "/form"),
    ("POST", "/send", lambda seen: {"form": {"csrf": seen[0].text.partition('value="')[2].partition('"')[0]}}),
]
