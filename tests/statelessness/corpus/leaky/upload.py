"""Uploads in a temporary directory."""

import tempfile
from pathlib import Path

from flask import Flask, jsonify, request

app = Flask(__name__)
app.secret_key = "the same for all"

FOLDER = Path(tempfile.gettempdir()) / "uploads"


@app.post("/upload")
def upload():
    FOLDER.mkdir(exist_ok=True)
    sent = request.files["file"]
    sent.save(FOLDER / sent.filename)
    return "", 201


@app.get("/uploads")
def uploads():
    return jsonify(sorted(path.name for path in FOLDER.iterdir()) if FOLDER.exists() else [])


SCRIPT = [("POST", "/upload", {"file": ["file", "a.txt", "hello"]}), ("GET", "/uploads")]
SUSPECT = "a.txt"
