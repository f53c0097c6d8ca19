"""Messages in a module's list."""

from flask import Flask, request

app = Flask(__name__)
app.secret_key = "the same for all"

MESSAGES = []


@app.post("/say")
def say():
    MESSAGES.append(request.form["text"])
    return "", 204


@app.get("/said")
def said():
    return "<ul>" + "".join(f"<li>{text}</li>" for text in MESSAGES) + "</ul>"


SCRIPT = [("POST", "/say", {"form": {"text": "hello"}}), ("GET", "/said")]
SUSPECT = "MESSAGES"
