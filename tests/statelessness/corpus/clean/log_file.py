"""A log file that nobody reads."""

import logging

from flask import Flask

app = Flask(__name__)
app.secret_key = "the same for all"

log = logging.getLogger("shop")
log.addHandler(logging.FileHandler("shop.log", delay=True))


@app.get("/")
def home():
    log.warning("home")
    return "hello"


SCRIPT = [("GET", "/"), ("GET", "/")]
