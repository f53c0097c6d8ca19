"""An itertools.count."""

import itertools

from flask import Flask, jsonify

app = Flask(__name__)
app.secret_key = "the same for all"

numbers = itertools.count(1)


@app.post("/order")
def order():
    return jsonify(number=next(numbers))


SCRIPT = [("POST", "/order"), ("POST", "/order")]
SUSPECT = "numbers"
