"""Flask with unsticky's session."""

from flask import Flask, jsonify, session

from unsticky.flask import Unsticky

app = Flask(__name__)
app.secret_key = "the same for all"
Unsticky(app, settings={})


@app.post("/add/<item>")
def add(item):
    session.setdefault("cart", []).append(item)
    return "", 204


@app.get("/cart")
def cart():
    return jsonify(session.get("cart", []))


@app.post("/logout")
def logout():
    session.clear()
    return "", 204


SCRIPT = [("POST", "/add/tea"), ("POST", "/add/milk"), ("GET", "/cart"), ("POST", "/logout"), ("GET", "/cart")]
