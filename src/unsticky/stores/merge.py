"""What a Change does to a Record, for stores whose server can't do it themselves."""

from __future__ import annotations

from collections.abc import Iterable

from ..session.store import APPLIED, Applied, Change, Record


def merge(record: Record | None, change: Change, now: float) -> tuple[Applied, Record | None]:
    """What became of `change`, and the record to write (only with APPLIED). The reference for every store."""
    if record is None or record.expires <= now or record.generation != change.generation:
        return Applied.GONE, None
    if record is change.base and change.after is not None:
        return APPLIED, change.after
    for name, value in change.expect.items():
        if record.fields.get(name) != value:
            return Applied.CONFLICT, None
    fields = {**record.fields, **change.put}
    for name in change.drop - change.put.keys():
        fields.pop(name, None)
    prefix = change.delete_if_only
    if prefix is not None and all(name.startswith(prefix) for name in fields):
        return Applied.EMPTIED, None
    return APPLIED, Record(
        fields=fields,
        created=record.created,
        touched=record.touched if change.touched is None else max(record.touched, change.touched),
        expires=record.expires if change.expires is None else max(record.expires, change.expires),
        owner=record.owner if change.owner is None else change.owner or None,
        generation=record.generation + change.raise_generation,
    )


def check_names(*groups: Iterable[str]) -> None:
    """Refuse, before anything is written, names that no store can encode (lone surrogates): a ValueError."""
    "".join(map("".join, groups)).encode()
