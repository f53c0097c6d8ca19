"""The blog of Flask's tutorial, told again: users, posts, a session, and SQLite in the instance folder."""

from pathlib import Path

from flask import Flask

from . import auth, blog, db


def create_app() -> Flask:
    app = Flask(__name__, instance_path=str(Path("instance").absolute()))
    app.config.from_mapping(SECRET_KEY="dev", DATABASE=str(Path(app.instance_path, "flaskr.sqlite")))
    Path(app.instance_path).mkdir(exist_ok=True)
    db.init_app(app)
    app.register_blueprint(auth.bp)
    app.register_blueprint(blog.bp)
    app.add_url_rule("/", endpoint="index")
    return app
