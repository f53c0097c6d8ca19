"""A counter on the view function."""

from flask import Flask

app = Flask(__name__)
app.secret_key = "the same for all"


@app.get("/")
def view():
    view.calls = getattr(view, "calls", 0) + 1
    return str(view.calls)


SCRIPT = [("GET", "/")]
SUSPECT = "view"
