"""The time, in several forms."""

import time
from datetime import UTC, datetime

from flask import Flask, jsonify

app = Flask(__name__)
app.secret_key = "the same for all"


@app.get("/")
def home():
    now = datetime.now(UTC)
    return jsonify(iso=now.isoformat(), http=now.strftime("%a, %d %b %Y %H:%M:%S GMT"), epoch=time.time())


SCRIPT = [("GET", "/"), ("GET", "/")]
