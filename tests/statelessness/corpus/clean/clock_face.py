"""What time is it? Each later run sees a later one, and some requests fall on two sides of a tick."""

import time

from flask import Flask, jsonify

app = Flask(__name__)
app.secret_key = "the same for all"


@app.get("/")
def now():
    return f"It is {time.strftime('%H:%M')}, or {time.strftime('%d %B %Y, %I:%M:%S %p')}."


@app.get("/tick")
def tick():
    return jsonify(tenth=int(time.time() * 10) % 600, open=time.time() % 60 < 30)


SCRIPT = [("GET", "/"), ("GET", "/tick"), ("GET", "/tick"), ("GET", "/tick"), ("GET", "/")]
