"""A dependency that counts."""

from typing import Annotated

from fastapi import Depends, FastAPI

app = FastAPI()


class Numbers:
    def __init__(self):
        self.last = 0

    def __call__(self):
        self.last += 1
        return self.last


numbers = Numbers()


@app.post("/orders")
def order(number: Annotated[int, Depends(numbers)]):
    return {"number": number}


SCRIPT = [("POST", "/orders"), ("POST", "/orders")]
SUSPECT = "numbers"
