"""FastAPI's first tutorial database: a dict."""

from fastapi import FastAPI

app = FastAPI()
ITEMS: dict[str, dict] = {}


@app.put("/items/{name}")
def put(name: str, item: dict):
    ITEMS[name] = item
    return item


@app.get("/items")
def read():
    return ITEMS


SCRIPT = [("PUT", "/items/tea", {"json": {"price": 3}}), ("GET", "/items")]
SUSPECT = "ITEMS"
