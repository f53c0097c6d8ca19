"""FastAPI's first steps, and its parameters: what is asked, is answered; a table is only read."""

from enum import StrEnum

from fastapi import FastAPI

app = FastAPI()
FAKE_ITEMS = [{"item_name": name} for name in ("Foo", "Bar", "Baz")]


class Model(StrEnum):
    ALEX = "alexnet"
    LE = "lenet"


@app.get("/")
async def root():
    return {"message": "Hello"}


@app.get("/items/")
async def items(skip: int = 0, limit: int = 10):
    return FAKE_ITEMS[skip : skip + limit]


@app.get("/models/{name}")
async def model(name: Model):
    return {"name": name, "message": "of many layers" if name is Model.ALEX else "the first"}


SCRIPT = [
    ("GET", "/"),
    ("GET", "/items/?skip=1"),
    ("GET", "/items/?limit=x"),
    ("GET", "/models/lenet"),
    ("GET", "/models/x"),
]
