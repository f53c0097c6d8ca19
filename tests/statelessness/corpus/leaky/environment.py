"""A value in os.environ."""

import os

from flask import Flask

app = Flask(__name__)
app.secret_key = "the same for all"


@app.put("/flag/<value>")
def set_flag(value):
    os.environ["FLAG"] = value
    return "", 204


@app.get("/flag")
def flag():
    return os.environ.get("FLAG", "none")


SCRIPT = [("PUT", "/flag/on"), ("GET", "/flag")]
SUSPECT = "FLAG"
