"""Who is it? The session holds the user's id, the database the rest."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from flask import Blueprint, flash, g, redirect, render_template, request, session, url_for
from werkzeug.security import check_password_hash, generate_password_hash

from .db import get_db

bp = Blueprint("auth", __name__, url_prefix="/auth")


@bp.route("/register", methods=("GET", "POST"))
def register() -> Any:
    if request.method == "POST":
        name, password = request.form["username"], request.form["password"]
        connection = get_db()
        problem = None if name and password else "Both a name and a password are needed."
        if problem is None:
            try:
                given = name, generate_password_hash(password)
                connection.execute("insert into user (username, password) values (?, ?)", given)
                connection.commit()
                return redirect(url_for("auth.login"))
            except connection.IntegrityError:
                problem = f"{name} is taken."
        flash(problem)
    return render_template("form.html", title="Register", fields=("username", "password"))


@bp.route("/login", methods=("GET", "POST"))
def login() -> Any:
    if request.method == "POST":
        name, password = request.form["username"], request.form["password"]
        user = get_db().execute("select * from user where username = ?", (name,)).fetchone()
        if user is not None and check_password_hash(user["password"], password):
            session.clear()
            session["user_id"] = user["id"]
            return redirect(url_for("index"))
        flash("No such user, or another password.")
    return render_template("form.html", title="Log in", fields=("username", "password"))


@bp.route("/logout")
def logout() -> Any:
    session.clear()
    return redirect(url_for("index"))


@bp.before_app_request
def load_user() -> None:
    known = session.get("user_id")
    g.user = get_db().execute("select * from user where id = ?", (known,)).fetchone() if known else None


def login_required(view: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(view)
    def wrapped(**given: Any) -> Any:
        return redirect(url_for("auth.login")) if g.user is None else view(**given)

    return wrapped
