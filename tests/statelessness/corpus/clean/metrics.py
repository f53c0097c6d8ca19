"""A counter that is local on purpose, and no response of the script."""

from collections import Counter

from flask import Flask

from unsticky import replica_local

app = Flask(__name__)
app.secret_key = "the same for all"

METRICS = replica_local(Counter(), why="scraped from each replica")


@app.get("/")
def home():
    METRICS["home"] += 1
    return "hello"


SCRIPT = [("GET", "/"), ("GET", "/")]
