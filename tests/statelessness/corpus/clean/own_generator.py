"""An unseeded generator of the module's own."""

from random import Random

from flask import Flask, jsonify

app = Flask(__name__)
app.secret_key = "the same for all"

generator = Random()


@app.get("/")
def home():
    return jsonify(number=generator.getrandbits(64))


SCRIPT = [("GET", "/"), ("GET", "/"), ("GET", "/"), ("GET", "/")]
