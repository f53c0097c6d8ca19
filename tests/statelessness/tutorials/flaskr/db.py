"""One connection for each request, kept in `g`."""

import sqlite3
from datetime import datetime

import click
from flask import Flask, current_app, g

SCHEMA = """
drop table if exists user;
drop table if exists post;
create table user (id integer primary key autoincrement, username text unique not null, password text not null);
create table post (
    id integer primary key autoincrement,
    author_id integer not null references user (id),
    created timestamp not null default current_timestamp,
    title text not null,
    body text not null
);
"""
sqlite3.register_converter("timestamp", lambda value: datetime.fromisoformat(value.decode()))


def get_db() -> sqlite3.Connection:
    if "db" not in g:
        g.db = sqlite3.connect(current_app.config["DATABASE"], detect_types=sqlite3.PARSE_DECLTYPES)
        g.db.row_factory = sqlite3.Row
    return g.db


def close_db(_: object = None) -> None:
    connection = g.pop("db", None)
    if connection is not None:
        connection.close()


@click.command("init-db")
def init_db() -> None:
    """Empty all tables, or make them."""
    get_db().executescript(SCHEMA)


def init_app(app: Flask) -> None:
    app.teardown_appcontext(close_db)
    app.cli.add_command(init_db)
