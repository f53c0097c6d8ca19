"""A setting that a request changes."""

from flask import Flask

app = Flask(__name__)
app.secret_key = "the same for all"

app.config["THEME"] = "light"


@app.put("/theme/<name>")
def choose(name):
    app.config["THEME"] = name
    return "", 204


@app.get("/theme")
def theme():
    return app.config["THEME"]


SCRIPT = [("PUT", "/theme/dark"), ("GET", "/theme")]
SUSPECT = "THEME"
