"""SQLAlchemy over a database in memory, as tests have it."""

from flask import Flask, jsonify
from sqlalchemy import create_engine, text
from sqlalchemy.pool import StaticPool

app = Flask(__name__)
engine = create_engine("sqlite://", poolclass=StaticPool)
with engine.begin() as connection:
    connection.execute(text("create table users (name text)"))


@app.post("/users/<name>")
def add(name):
    with engine.begin() as connection:
        connection.execute(text("insert into users values (:name)"), {"name": name})
    return "added"


@app.get("/users")
def users():
    with engine.begin() as connection:
        return jsonify([row.name for row in connection.execute(text("select name from users"))])


SCRIPT = [("POST", "/users/ann"), ("GET", "/users")]
SUSPECT = "sqlalchemy_memory:engine.connection.changes_in_memory"
