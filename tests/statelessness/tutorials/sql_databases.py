"""FastAPI with a database: heroes in SQLite, by SQLModel, in a file that is made at start-up."""

from collections.abc import Iterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Query
from sqlmodel import Field, Session, SQLModel, create_engine, select

engine = create_engine("sqlite:///data/database.db", connect_args={"check_same_thread": False})


class HeroBase(SQLModel):
    name: str = Field(index=True)
    age: int | None = Field(default=None, index=True)


class Hero(HeroBase, table=True):
    id: int | None = Field(default=None, primary_key=True)
    secret_name: str


class HeroPublic(HeroBase):
    id: int


class HeroCreate(HeroBase):
    secret_name: str


class HeroUpdate(SQLModel):
    name: str | None = None
    age: int | None = None


def session() -> Iterator[Session]:
    with Session(engine) as opened:
        yield opened


@asynccontextmanager
async def lifespan(_: FastAPI):
    SQLModel.metadata.create_all(engine)
    yield


app = FastAPI(lifespan=lifespan)
Opened = Annotated[Session, Depends(session)]


def known(opened: Session, number: int) -> Hero:
    hero = opened.get(Hero, number)
    if hero is None:
        raise HTTPException(404, "There is no such hero")
    return hero


@app.post("/heroes/", response_model=HeroPublic)
def create(hero: HeroCreate, opened: Opened):
    made = Hero.model_validate(hero)
    opened.add(made)
    opened.commit()
    opened.refresh(made)
    return made


@app.get("/heroes/", response_model=list[HeroPublic])
def heroes(opened: Opened, offset: int = 0, limit: Annotated[int, Query(le=100)] = 100):
    return opened.exec(select(Hero).offset(offset).limit(limit)).all()


@app.get("/heroes/{number}", response_model=HeroPublic)
def hero(number: int, opened: Opened):
    return known(opened, number)


@app.patch("/heroes/{number}", response_model=HeroPublic)
def update(number: int, changes: HeroUpdate, opened: Opened):
    changed = known(opened, number)
    changed.sqlmodel_update(changes.model_dump(exclude_unset=True))
    opened.add(changed)
    opened.commit()
    opened.refresh(changed)
    return changed


@app.delete("/heroes/{number}")
def delete(number: int, opened: Opened):
    opened.delete(known(opened, number))
    opened.commit()
    return {"ok": True}


def empty() -> None:
    SQLModel.metadata.drop_all(engine)
    SQLModel.metadata.create_all(engine)


SCRIPT = [
    ("GET", "/heroes/"),
    ("POST", "/heroes/", {"json": {"name": "Deadpond", "secret_name": "Dive"}}),
    ("POST", "/heroes/", {"json": {"name": "Rusty", "age": 48, "secret_name": "Tommy"}}),
    ("GET", "/heroes/?limit=1"),
    ("PATCH", "/heroes/2", {"json": {"age": 49}}),
    ("DELETE", "/heroes/1"),
    ("GET", "/heroes/"),
    ("GET", "/heroes/1"),
]
