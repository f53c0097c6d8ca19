"""The next number of a generator of the module's own."""

from flask import Flask

app = Flask(__name__)


def numbers():
    last = 0
    while True:
        last += 1
        yield last


NUMBERS = numbers()


@app.post("/orders")
def order():
    return {"id": next(NUMBERS)}


SCRIPT = [("POST", "/orders"), ("POST", "/orders")]
SUSPECT = "generator:NUMBERS"
