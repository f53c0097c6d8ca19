"""FastAPI's dependencies with yield: what each request opens, it closes; also when the view raises."""

from collections.abc import Iterator
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException

app = FastAPI()
DATA = {"plumbus": {"owner": "Morty"}, "portal-gun": {"owner": "Rick"}}


class OwnerError(Exception):
    """It is somebody else's."""


class Connection:
    def __init__(self) -> None:
        self.is_open = True
        self.asked: list[str] = []

    def find(self, key: str) -> dict[str, str] | None:
        assert self.is_open
        self.asked.append(key)
        return DATA.get(key)

    def close(self) -> None:
        self.is_open = False


def connection() -> Iterator[Connection]:
    opened = Connection()
    try:
        yield opened
    finally:
        opened.close()


def username() -> Iterator[str]:
    try:
        yield "Rick"
    except OwnerError as error:
        raise HTTPException(400, f"Owner error: {error}") from error


@app.get("/items/{key}")
def item(key: str, name: Annotated[str, Depends(username)], opened: Annotated[Connection, Depends(connection)]):
    found = opened.find(key)
    if found is None:
        raise HTTPException(404, "There is no such item")
    if found["owner"] != name:
        raise OwnerError(name)
    return {**found, "asked": opened.asked}


SCRIPT = [
    ("GET", "/items/portal-gun"),
    ("GET", "/items/plumbus"),
    ("GET", "/items/nothing"),
    ("GET", "/items/portal-gun"),
]
