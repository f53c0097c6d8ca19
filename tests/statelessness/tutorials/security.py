"""FastAPI's simple OAuth2: a table of users that is only read, a token that each replica understands."""

from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import OAuth2PasswordBearer, OAuth2PasswordRequestForm

app = FastAPI()
bearer = OAuth2PasswordBearer(tokenUrl="token")
fake_users = {
    "johndoe": {"username": "johndoe", "hashed": "hashed:secret", "disabled": False},
    "alice": {"username": "alice", "hashed": "hashed:secret2", "disabled": True},
}


def user(token: Annotated[str, Depends(bearer)]):
    found = fake_users.get(token)
    if found is None:
        raise HTTPException(401, "Who is it?", {"WWW-Authenticate": "Bearer"})
    return found


def active(found: Annotated[dict, Depends(user)]):
    if found["disabled"]:
        raise HTTPException(400, "The user is inactive")
    return found


@app.post("/token")
async def token(form: Annotated[OAuth2PasswordRequestForm, Depends()]):
    found = fake_users.get(form.username)
    if found is None or found["hashed"] != f"hashed:{form.password}":
        raise HTTPException(400, "No such user, or another password")
    return {"access_token": found["username"], "token_type": "bearer"}


@app.get("/users/me")
async def me(found: Annotated[dict, Depends(active)]):
    return {"username": found["username"]}


def _as(number):
    return lambda seen: {"headers": {"authorization": f"Bearer {seen[number].json()['access_token']}"}}


SCRIPT = [
    ("POST", "/token", {"form": {"username": "johndoe", "password": "secret"}}),
    ("GET", "/users/me", _as(0)),
    ("POST", "/token", {"form": {"username": "alice", "password": "secret2"}}),
    ("GET", "/users/me", _as(2)),
    ("GET", "/users/me"),
    ("POST", "/token", {"form": {"username": "johndoe", "password": "wrong"}}),
]
