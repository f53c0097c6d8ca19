"""A token bucket in the process: two calls at once, then one in two seconds."""

import time

from flask import Flask

app = Flask(__name__)
app.secret_key = "the same for all"


class Bucket:
    def __init__(self):
        self.tokens, self.at = 2.0, time.monotonic()

    def take(self):
        now = time.monotonic()
        self.tokens, self.at = min(2.0, self.tokens + (now - self.at) / 2), now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


BUCKET = Bucket()


@app.get("/")
def limited():
    return "fine" if BUCKET.take() else ("too many", 429)


SCRIPT = [("GET", "/"), ("GET", "/"), ("GET", "/")]
SUSPECT = "BUCKET"
