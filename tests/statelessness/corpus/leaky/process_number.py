"""The process's number, beside a client that is made at its first use."""

import os

from flask import Flask, jsonify

app = Flask(__name__)
client = None


@app.get("/health")
def health():
    global client
    client = client or object()
    return jsonify(pid=os.getpid())


SCRIPT = [("GET", "/health"), ("GET", "/health")]
SUSPECT = "process_number:client"
