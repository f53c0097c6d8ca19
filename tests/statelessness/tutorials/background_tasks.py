"""FastAPI's background tasks: notes are written to a file after the response."""

from pathlib import Path
from typing import Annotated

from fastapi import BackgroundTasks, Depends, FastAPI

app = FastAPI()
NOTES = Path("data/notes.txt")


def write(text: str) -> None:
    with NOTES.open("a") as file:
        file.write(f"{text}\n")


def query(tasks: BackgroundTasks, q: str | None = None) -> str | None:
    if q:
        tasks.add_task(write, f"asked: {q}")
    return q


@app.post("/send-notification/{email}")
async def send(email: str, tasks: BackgroundTasks, q: Annotated[str | None, Depends(query)]):
    tasks.add_task(write, f"to {email}")
    return {"message": "It will be sent", "q": q}


@app.get("/notes")
def notes():
    return NOTES.read_text().splitlines() if NOTES.exists() else []


def empty() -> None:
    NOTES.unlink(missing_ok=True)


SENT = [("POST", "/send-notification/ann@example.com"), ("POST", "/send-notification/bob@example.com?q=tea")]
SCRIPT = [*SENT, ("GET", "/notes")]
