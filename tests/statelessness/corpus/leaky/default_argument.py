"""A mutable default argument."""

from flask import Flask, jsonify

app = Flask(__name__)
app.secret_key = "the same for all"


def remember(item, seen=[]):  # noqa: B006 - the leak
    seen.append(item)
    return seen


@app.get("/seen/<item>")
def seen(item):
    return jsonify(remember(item))


SCRIPT = [("GET", "/seen/a"), ("GET", "/seen/b")]
SUSPECT = "remember"
