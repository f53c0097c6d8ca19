"""The app that FastAPI's page on tests tests: a table in memory behind a token in a header."""

from typing import Annotated

from fastapi import FastAPI, Header, HTTPException
from pydantic import BaseModel

TOKEN = "coneofsilence"
fake_db = {"foo": {"id": "foo", "title": "Foo"}, "bar": {"id": "bar", "title": "Bar"}}
app = FastAPI()


class Item(BaseModel):
    id: str
    title: str


@app.get("/items/{key}", response_model=Item)
async def read(key: str, x_token: Annotated[str, Header()]):
    if x_token != TOKEN:
        raise HTTPException(400, "Another token is needed")
    if key not in fake_db:
        raise HTTPException(404, "There is no such item")
    return fake_db[key]


@app.post("/items/")
async def create(item: Item, x_token: Annotated[str, Header()]) -> Item:
    if x_token != TOKEN:
        raise HTTPException(400, "Another token is needed")
    if item.id in fake_db:
        raise HTTPException(409, "It is there already")
    fake_db[item.id] = item.model_dump()
    return item


GIVEN = {"headers": {"x-token": TOKEN}}
SCRIPT = [
    ("GET", "/items/foo", GIVEN),
    ("GET", "/items/foo", {"headers": {"x-token": "nope"}}),
    ("POST", "/items/", {"json": {"id": "baz", "title": "Baz"}, **GIVEN}),
    ("GET", "/items/baz", GIVEN),
]
