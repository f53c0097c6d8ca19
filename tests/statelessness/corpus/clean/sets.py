"""A set, whose order changes with the hash seed."""

from flask import Flask, jsonify

app = Flask(__name__)
app.secret_key = "the same for all"

TAGS = {"tea", "milk", "sugar", "honey", "lemon"}


@app.get("/")
def tags():
    return jsonify(tags=list(TAGS), text=" ".join(TAGS))


SCRIPT = [("GET", "/"), ("GET", "/")]
