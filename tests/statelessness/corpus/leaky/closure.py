"""A counter in a closure."""

from flask import Flask

app = Flask(__name__)
app.secret_key = "the same for all"


def counter():
    count = 0

    def following():
        nonlocal count
        count += 1
        return count

    return following


following = counter()


@app.get("/ticket")
def ticket():
    return str(following())


SCRIPT = [("POST", "/nothing"), ("GET", "/ticket"), ("GET", "/ticket")]
SUSPECT = "following"
