"""FastAPI's lifespan: a model that is loaded before the first request, and unloaded after the last."""

from contextlib import asynccontextmanager

from fastapi import FastAPI

models = {}


@asynccontextmanager
async def lifespan(_: FastAPI):
    models["answer"] = lambda x: x * 42
    yield
    models.clear()


app = FastAPI(lifespan=lifespan)


@app.get("/predict")
async def predict(x: float):
    return {"result": models["answer"](x)}


SCRIPT = [("GET", "/predict?x=1.5"), ("GET", "/predict?x=1.5"), ("GET", "/predict?x=many")]
