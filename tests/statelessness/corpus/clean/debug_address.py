"""The address of an object in a text, another one each time."""

from flask import Flask

app = Flask(__name__)
app.secret_key = "the same for all"


@app.get("/")
def home():
    return repr(object())


SCRIPT = [("GET", "/"), ("GET", "/")]
