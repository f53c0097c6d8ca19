"""A database on the local disk."""

import sqlite3

from flask import Flask, jsonify, request

app = Flask(__name__)
app.secret_key = "the same for all"


def database():
    connection = sqlite3.connect("notes.db")
    connection.execute("create table if not exists notes (text)")
    return connection


@app.post("/notes")
def write():
    with database() as connection:
        connection.execute("insert into notes values (?)", [request.get_json()["text"]])
    return "", 201


@app.get("/notes")
def read():
    return jsonify([text for (text,) in database().execute("select text from notes")])


SCRIPT = [("POST", "/notes", {"json": {"text": "hello"}}), ("GET", "/notes")]
SUSPECT = "notes.db"
