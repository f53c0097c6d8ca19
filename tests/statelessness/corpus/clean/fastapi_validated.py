"""FastAPI with a model, validation errors and a lifespan."""

from contextlib import asynccontextmanager

from fastapi import FastAPI
from pydantic import BaseModel


class Item(BaseModel):
    name: str
    price: float


@asynccontextmanager
async def lifespan(app):
    app.state.ready = True
    yield


app = FastAPI(lifespan=lifespan)


@app.post("/items")
def make(item: Item):
    return {"total": item.price * 2, "ready": app.state.ready}


SCRIPT = [
    ("POST", "/items", {"json": {"name": "tea", "price": 3}}),
    ("POST", "/items", {"json": {}}),
    ("GET", "/openapi.json"),
]
