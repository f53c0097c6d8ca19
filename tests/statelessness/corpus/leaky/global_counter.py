"""A counter that `global` rebinds."""

from flask import Flask

app = Flask(__name__)
app.secret_key = "the same for all"

hits = 0


@app.get("/")
def count():
    global hits
    hits += 1
    return str(hits)


SCRIPT = [("GET", "/")]
SUSPECT = "hits"
