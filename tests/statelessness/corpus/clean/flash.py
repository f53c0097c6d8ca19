"""Flashed messages, in the session."""

from flask import Flask, flash, get_flashed_messages, jsonify

app = Flask(__name__)
app.secret_key = "the same for all"


@app.post("/save")
def save():
    flash("saved")
    return "", 204


@app.get("/")
def home():
    return jsonify(get_flashed_messages())


SCRIPT = [("POST", "/save"), ("GET", "/"), ("GET", "/")]
