"""Posts: everybody reads them, their author changes them."""

import sqlite3
from typing import Any

from flask import Blueprint, abort, flash, g, redirect, render_template, request, url_for

from .auth import login_required
from .db import get_db

bp = Blueprint("blog", __name__)
POSTS = "select post.*, username from post join user on author_id = user.id"


@bp.route("/")
def index() -> Any:
    posts = get_db().execute(f"{POSTS} order by created desc, post.id desc").fetchall()
    return render_template("index.html", posts=posts)


@bp.route("/create", methods=("GET", "POST"))
@login_required
def create() -> Any:
    if request.method == "POST" and _is_titled():
        given = request.form["title"], request.form["body"], g.user["id"]
        return _done("insert into post (title, body, author_id) values (?, ?, ?)", given)
    return render_template("form.html", title="New post", fields=("title", "body"))


@bp.route("/<int:number>/update", methods=("GET", "POST"))
@login_required
def update(number: int) -> Any:
    post = _own(number)
    if request.method == "POST" and _is_titled():
        given = request.form["title"], request.form["body"], number
        return _done("update post set title = ?, body = ? where id = ?", given)
    return render_template("form.html", title=f"Edit {post['title']}", fields=("title", "body"), values=post)


@bp.route("/<int:number>/delete", methods=("POST",))
@login_required
def delete(number: int) -> Any:
    _own(number)
    return _done("delete from post where id = ?", (number,))


def _own(number: int) -> sqlite3.Row:
    post: sqlite3.Row | None = get_db().execute(f"{POSTS} where post.id = ?", (number,)).fetchone()
    if post is None:
        abort(404, f"There is no post {number}.")
    if post["author_id"] != g.user["id"]:
        abort(403)
    return post


def _is_titled() -> bool:
    if not request.form["title"]:
        flash("A title is needed.")
    return bool(request.form["title"])


def _done(statement: str, given: tuple[Any, ...]) -> Any:
    get_db().execute(statement, given)
    get_db().commit()
    return redirect(url_for("blog.index"))
