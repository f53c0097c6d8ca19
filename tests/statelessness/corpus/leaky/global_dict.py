"""A cart in a module's dict."""

from flask import Flask, jsonify

app = Flask(__name__)
app.secret_key = "the same for all"

CART = {}


@app.post("/add/<item>")
def add(item):
    CART[item] = CART.get(item, 0) + 1
    return jsonify(CART)


@app.get("/cart")
def cart():
    return jsonify(CART)


SCRIPT = [("POST", "/add/tea"), ("GET", "/cart")]
SUSPECT = "CART"
