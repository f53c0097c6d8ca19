"""State in an object of the module."""

from flask import Flask

app = Flask(__name__)
app.secret_key = "the same for all"


class Inventory:
    def __init__(self):
        self.stock = {"tea": 5}

    def take(self, item):
        self.stock[item] -= 1
        return self.stock[item]


inventory = Inventory()


@app.post("/take/<item>")
def take(item):
    return str(inventory.take(item))


SCRIPT = [("POST", "/take/tea"), ("POST", "/take/tea")]
SUSPECT = "inventory"
