"""State on a class."""

from flask import Flask

app = Flask(__name__)
app.secret_key = "the same for all"


class Basket:
    total = 0


@app.post("/buy/<int:price>")
def buy(price):
    Basket.total += price
    return str(Basket.total)


SCRIPT = [("POST", "/buy/3"), ("POST", "/buy/4")]
SUSPECT = "Basket"
