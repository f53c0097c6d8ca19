"""A constant that the first request makes."""

from flask import Flask

app = Flask(__name__)
app.secret_key = "the same for all"

_table = None


def table():
    global _table
    if _table is None:
        _table = {number: number * number for number in range(10)}
    return _table


@app.get("/square/<int:number>")
def view(number):
    return str(table()[number])


SCRIPT = [("GET", "/square/3"), ("GET", "/square/4")]
