"""A key that each process makes, beside a variable that requests change and no response shows."""

import os

from flask import Flask

app = Flask(__name__)
app.secret_key = "the same for all"

BOOT = os.urandom(4).hex()
HITS = {}


@app.post("/hit")
def hit():
    HITS["count"] = HITS.get("count", 0) + 1
    return "counted"


@app.get("/boot")
def boot():
    return BOOT


SCRIPT = [("POST", "/hit"), ("GET", "/boot"), ("GET", "/boot")]
SUSPECT = "boot_beside_hits:BOOT"
