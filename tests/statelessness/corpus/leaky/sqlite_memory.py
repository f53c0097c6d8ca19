"""A database in memory."""

import sqlite3

from flask import Flask, jsonify

app = Flask(__name__)
app.secret_key = "the same for all"

connection = sqlite3.connect(":memory:", check_same_thread=False)
connection.execute("create table notes (text)")


@app.post("/notes/<text>")
def write(text):
    connection.execute("insert into notes values (?)", [text])
    return "", 201


@app.get("/notes")
def read():
    return jsonify([text for (text,) in connection.execute("select text from notes")])


SCRIPT = [("POST", "/notes/hello"), ("GET", "/notes")]
SUSPECT = "connection"
