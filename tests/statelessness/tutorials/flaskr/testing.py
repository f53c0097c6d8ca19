"""What a check needs: the tables empty before each run."""

from . import create_app
from .db import init_db


def empty() -> None:
    with create_app().app_context():
        init_db.callback()
