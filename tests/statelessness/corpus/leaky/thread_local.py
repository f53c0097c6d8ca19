"""State in a thread-local."""

import threading

from flask import Flask

app = Flask(__name__)
app.secret_key = "the same for all"

local = threading.local()


@app.post("/name/<name>")
def remember(name):
    local.name = name
    return "", 204


@app.get("/name")
def name():
    return getattr(local, "name", "none")


SCRIPT = [("POST", "/name/ann"), ("GET", "/name")]
SUSPECT = "local"
