"""FastAPI's body updates: a dict of items that PUT and PATCH write to."""

from fastapi import FastAPI
from fastapi.encoders import jsonable_encoder
from pydantic import BaseModel

app = FastAPI()


class Item(BaseModel):
    name: str | None = None
    price: float | None = None
    tax: float = 10.5
    tags: list[str] = []


items = {"foo": {"name": "Foo", "price": 50.2}, "baz": {"name": "Baz", "price": 50.2, "tags": []}}


@app.get("/items/{key}", response_model=Item)
async def read(key: str):
    return items[key]


@app.put("/items/{key}", response_model=Item)
async def replace(key: str, item: Item):
    items[key] = jsonable_encoder(item)
    return items[key]


@app.patch("/items/{key}", response_model=Item)
async def update(key: str, item: Item):
    changed = Item(**items[key]).model_copy(update=item.model_dump(exclude_unset=True))
    items[key] = jsonable_encoder(changed)
    return changed


SCRIPT = [
    ("GET", "/items/foo"),
    ("PUT", "/items/foo", {"json": {"name": "Foo, again", "price": 3}}),
    ("PATCH", "/items/baz", {"json": {"tags": ["new"]}}),
    ("GET", "/items/baz"),
]
