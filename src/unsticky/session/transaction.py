"""Read, compute, write, as one step: for counters, stocks, and whatever else two requests must not do at once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

from ..errors import SessionConflict
from . import codec
from .binding import Binding
from .commit import save
from .names import field_name
from .operations import Load, Steps, Update
from .session import Driver, Session
from .store import Applied, Change, Record
from .updating import field_changes
from .writing import begun, changed, check_sizes, rebase, stored

TRIES = 100


class Draft(dict[str, Any]):
    """The stored values, to be read and changed. It notes which names were looked for and not there."""

    def __init__(self, values: dict[str, Any], record: Record | None, plain: Mapping[str, bytes]) -> None:
        """`record`, `plain`: what they were read from. The session may save or reload while the body runs."""
        super().__init__(values)
        self.record = record
        self.plain = plain
        self.missed: set[str] = set()

    def _look(self, key: Any) -> None:
        if not dict.__contains__(self, key):
            self.missed.add(key)

    def __contains__(self, key: object) -> bool:
        self._look(key)
        return super().__contains__(key)

    def __getitem__(self, key: str) -> Any:
        self._look(key)
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self._look(key)
        return super().get(key, default)

    def pop(self, key: str, *default: Any) -> Any:
        self._look(key)
        return super().pop(key, *default)

    def setdefault(self, key: str, default: Any = None) -> Any:
        self._look(key)
        return super().setdefault(key, default)


class Transaction:
    """`for draft in session.transaction(): ...`, or `async for`: the body runs again until nobody came between.

    Leaving the body with `break` or an exception writes nothing.
    """

    def __init__(self, session: Session, driver: Driver) -> None:
        self._session = session
        self._driver = driver

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for attempt in range(TRIES):
            draft = self._driver.run(_begin(self._session, first=attempt == 0))
            yield draft
            if self._driver.run(_end(self._session, draft)):
                return
        raise SessionConflict(_OVERTAKEN)

    async def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
        binding = self._session.opened()
        for attempt in range(TRIES):
            draft = await self._driver.run_async(_begin(self._session, first=attempt == 0), binding)
            yield draft
            if await self._driver.run_async(_end(self._session, draft), binding):
                return
        raise SessionConflict(_OVERTAKEN)


_OVERTAKEN = f"Other requests changed what this transaction had read, {TRIES} times in a row. Nothing was written."
_ENDED = "The session ended elsewhere while a transaction was writing to it. Nothing was written."


def _begin(session: Session, *, first: bool) -> Steps[Draft]:
    binding = session.opened()
    if binding is None:
        return Draft(dict(dict.items(session)), None, {})
    if first:
        if not binding.loaded:
            yield from binding.loading()
            session.show(binding.outcome())
        session.mark_accessed()
        yield from save(session)  # what this request has changed so far is part of what the transaction reads
    elif binding.record is not None:
        yield from _read_again(session, binding)
    return Draft(binding.decoded(), binding.record, binding.plain)


def _read_again(session: Session, binding: Binding) -> Steps[None]:
    token = binding.current_token()
    if not binding.renew((yield Load(token.key))):
        binding.begin_anew()
        session.show({})
        raise SessionConflict(_ENDED)
    session.show(binding.values)


def _end(session: Session, draft: Draft) -> Steps[bool]:
    """Write what the draft changed, if nothing that it read has changed. False: it has."""
    binding = session._binding
    if binding is None or draft.record is None:
        session.update(draft)
        if binding is not None:
            yield from save(session)
        return True
    if binding.record is None:
        return True  # the body has ended the session: what was read from it is no part of another one
    fields = _encoded(draft, draft.plain)
    drop = frozenset(name for name in draft.plain if name not in draft.keys() | binding.undecodable)
    if not (fields or drop):
        return True
    check_sizes(binding, fields, draft.plain, drop)
    return (yield from _written(session, binding, draft, fields, drop))


def _written(
    session: Session, binding: Binding, draft: Draft, fields: Mapping[str, bytes], drop: frozenset[str]
) -> Steps[bool]:
    record, token = draft.record, binding.current_token()
    assert record is not None
    absent = (draft.missed | fields.keys()) - draft.plain.keys()
    change = Change(
        generation=record.generation,
        put=stored(binding, token.key, fields),
        drop=drop,
        expect={**{name: record.fields[name] for name in draft.plain}, **dict.fromkeys(absent, None)},
    )
    applied = yield Update(token.key, change)
    if not binding.holds(token):
        return True  # as if the body had ended it
    if applied is Applied.GONE:
        binding.begin_anew()
        session.show({})
        raise SessionConflict(_ENDED)
    if applied is Applied.CONFLICT:
        return False
    _adopt(session, binding, draft, change, fields)
    return True


def _adopt(session: Session, binding: Binding, draft: Draft, change: Change, fields: Mapping[str, bytes]) -> None:
    """The session shows what was written. What the body did to the session itself is left for the commit."""
    record, rotation, owner = binding.record, binding.rotation, binding.owner
    assert record is not None
    put, gone = field_changes(session, binding)
    mine = {name: dict.__getitem__(session, name) for name in put}
    plain = {name: data for name, data in {**binding.plain, **fields}.items() if name not in change.drop}
    saved = {name: value for name, value in dict.items(session) if name in plain and name not in draft.plain}
    session.show({**saved, **draft})
    session._lent = True  # the body may still hold what is in the draft
    token = binding.current_token()
    rebase(session, binding, token, changed(record, change), plain, begun(session, binding, dict.keys(session)))
    binding.rotation, binding.owner = rotation, owner
    binding.changed = bool(mine or gone or rotation or owner is not None)
    for name in gone:
        dict.pop(session, name, None)
    dict.update(session, mine)


def _encoded(draft: Draft, plain: Mapping[str, bytes]) -> dict[str, bytes]:
    encoded = {field_name(name): codec.encode(value, f"session[{name!r}]") for name, value in dict.items(draft)}
    return {name: data for name, data in encoded.items() if data != plain.get(name)}
