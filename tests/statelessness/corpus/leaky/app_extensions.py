"""State in app.extensions."""

from flask import Flask, jsonify

app = Flask(__name__)
app.secret_key = "the same for all"

app.extensions["visits"] = {"count": 0}


@app.get("/")
def visit():
    app.extensions["visits"]["count"] += 1
    return jsonify(app.extensions["visits"])


SCRIPT = [("GET", "/")]
SUSPECT = "visits"
