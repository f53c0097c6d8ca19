"""Flask's own session, in a signed cookie."""

from flask import Flask, jsonify, session

app = Flask(__name__)
app.secret_key = "the same for all"


@app.post("/add/<item>")
def add(item):
    session.setdefault("cart", []).append(item)
    session.modified = True
    return "", 204


@app.get("/cart")
def cart():
    return jsonify(session.get("cart", []))


SCRIPT = [("POST", "/add/tea"), ("POST", "/add/milk"), ("GET", "/cart")]
