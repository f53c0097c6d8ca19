"""A seeded generator that goes on from request to request."""

from random import Random

from flask import Flask

app = Flask(__name__)
app.secret_key = "the same for all"

generator = Random(7)


@app.get("/draw")
def draw():
    return str(generator.randrange(1000))


SCRIPT = [("GET", "/draw"), ("GET", "/draw"), ("GET", "/draw")]
SUSPECT = "generator"
