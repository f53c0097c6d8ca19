"""A counter in a file of the working directory."""

from pathlib import Path

from flask import Flask

app = Flask(__name__)
app.secret_key = "the same for all"

FILE = Path("count.txt")


@app.post("/count")
def count():
    number = int(FILE.read_text()) + 1 if FILE.exists() else 1
    FILE.write_text(str(number))
    return str(number)


SCRIPT = [("POST", "/count"), ("POST", "/count")]
SUSPECT = "count.txt"
