"""404, 405 and a handled exception."""

from flask import Flask, jsonify

app = Flask(__name__)
app.secret_key = "the same for all"


@app.get("/broken")
def broken():
    raise ValueError("no")


@app.errorhandler(ValueError)
def told(error):
    return jsonify(error=str(error)), 400


SCRIPT = [("GET", "/broken"), ("GET", "/missing"), ("POST", "/broken")]
