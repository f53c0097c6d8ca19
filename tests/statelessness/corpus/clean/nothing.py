"""No state at all."""

from flask import Flask

app = Flask(__name__)
app.secret_key = "the same for all"


@app.get("/")
def home():
    return "hello"


SCRIPT = [("GET", "/"), ("GET", "/")]
