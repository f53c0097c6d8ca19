"""A GET that writes to the session: the same on one replica and on many."""

from flask import Flask, session

app = Flask(__name__)
app.secret_key = "the same for all"


@app.get("/visit")
def visit():
    session["visits"] = session.get("visits", 0) + 1
    return str(session["visits"])


SCRIPT = [("GET", "/visit"), ("GET", "/visit")]
