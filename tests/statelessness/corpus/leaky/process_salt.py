"""A salt that each process makes."""

import hashlib
import secrets

from flask import Flask

app = Flask(__name__)
app.secret_key = "the same for all"

SALT = secrets.token_hex(8)


@app.get("/etag/<name>")
def etag(name):
    return hashlib.sha256((SALT + name).encode()).hexdigest()


SCRIPT = [("GET", "/etag/a"), ("GET", "/etag/a")]
SUSPECT = "SALT"
