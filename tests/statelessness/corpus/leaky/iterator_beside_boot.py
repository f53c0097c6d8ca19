"""An itertools.count, in a process that makes a name for itself that no response depends on."""

import itertools
import secrets

from flask import Flask, jsonify

app = Flask(__name__)
NAME = secrets.token_hex(8)
NUMBERS = itertools.count(1)


@app.post("/order")
def order():
    return jsonify(number=next(NUMBERS))


SCRIPT = [("POST", "/order"), ("POST", "/order")]
SUSPECT = "iterator_beside_boot:NUMBERS"
