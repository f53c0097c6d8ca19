"""A dbm on the local disk."""

import dbm.dumb

from flask import Flask

app = Flask(__name__)
app.secret_key = "the same for all"


@app.post("/put/<value>")
def put(value):
    with dbm.dumb.open("values") as values:
        values["v"] = value
    return "", 204


@app.get("/get")
def get():
    with dbm.dumb.open("values") as values:
        return values.get("v", b"none")


SCRIPT = [("POST", "/put/a"), ("GET", "/get")]
SUSPECT = "values"
