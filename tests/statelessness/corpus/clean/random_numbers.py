"""Random numbers of the module that everybody uses."""

import random

from flask import Flask, jsonify

app = Flask(__name__)
app.secret_key = "the same for all"


@app.get("/")
def home():
    return jsonify(number=random.random(), dice=random.randint(1, 6))


SCRIPT = [("GET", "/"), ("GET", "/"), ("GET", "/"), ("GET", "/")]
