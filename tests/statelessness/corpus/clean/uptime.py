"""How long has it been up? Replicas that began together say the same, some later or some earlier."""

import time

from flask import Flask, jsonify

app = Flask(__name__)
app.secret_key = "the same for all"

STARTED = time.monotonic()


@app.get("/health")
def health():
    seconds = time.monotonic() - STARTED
    return jsonify(seconds=int(seconds), exactly=seconds, minutes=f"{seconds // 60:.0f} min")


SCRIPT = [("GET", "/health"), ("GET", "/health"), ("GET", "/health")]
