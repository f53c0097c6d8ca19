"""lru_cache over a pure function."""

from functools import lru_cache

from flask import Flask

app = Flask(__name__)
app.secret_key = "the same for all"


@lru_cache
def square(number):
    return number * number


@app.get("/square/<int:number>")
def view(number):
    return str(square(number))


SCRIPT = [("GET", "/square/3"), ("GET", "/square/3"), ("GET", "/square/4")]
