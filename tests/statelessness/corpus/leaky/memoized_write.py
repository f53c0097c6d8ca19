"""A cache that is asked before the data."""

from functools import lru_cache

from flask import Flask

app = Flask(__name__)
app.secret_key = "the same for all"


class Prices:
    def __init__(self):
        self.values = {"tea": 3}


prices = Prices()


@lru_cache
def price(item):
    return prices.values[item]


@app.put("/price/<item>/<int:value>")
def change(item, value):
    prices.values[item] = value
    return "", 204


@app.get("/price/<item>")
def read(item):
    return str(price(item))


SCRIPT = [("PUT", "/price/tea/4"), ("GET", "/price/tea")]
SUSPECT = "prices"
