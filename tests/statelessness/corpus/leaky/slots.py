"""State in an object with __slots__."""

from flask import Flask

app = Flask(__name__)
app.secret_key = "the same for all"


class Turn:
    __slots__ = ("number",)

    def __init__(self):
        self.number = 0


TURN = Turn()


@app.get("/turn")
def turn():
    TURN.number += 1
    return str(TURN.number)


SCRIPT = [("GET", "/turn")]
SUSPECT = "TURN"
