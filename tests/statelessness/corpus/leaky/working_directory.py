"""A request that moves the process into another directory."""

import os

from flask import Flask, jsonify

app = Flask(__name__)


@app.post("/enter")
def enter():
    os.chdir(os.path.dirname(os.getcwd()))
    return jsonify(entered=True)


@app.get("/depth")
def depth():
    return jsonify(depth=len(os.getcwd().split("/")))


SCRIPT = [("POST", "/enter"), ("GET", "/depth")]
SUSPECT = "the working directory"
