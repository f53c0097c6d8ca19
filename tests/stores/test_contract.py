"""What every store promises: one contract for all, with the interleavings that lose sessions elsewhere."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from threading import Barrier, Thread
from uuid import uuid4

import pytest

from support.stores import Face, face, record, with_fields
from support.valkey import Valkey
from unsticky.session.store import Applied, Change, ImmediateLoad, Purgeable, Record
from unsticky.stores import open_async_store
from unsticky.testing import FakeClock

KINDS = [f"{store}-{kind}" for store in ("memory", "sqlite", "valkey") for kind in ("sync", "async")]
ASYNC_KINDS = [kind for kind in KINDS if kind.endswith("-async")]
PURGEABLE = [kind for kind in KINDS if not kind.startswith("valkey")]
IMMEDIATE = [kind for kind in ASYNC_KINDS if not kind.startswith("valkey")]
GONE, CONFLICT, APPLIED, EMPTIED = Applied.GONE, Applied.CONFLICT, Applied.APPLIED, Applied.EMPTIED
ODD_NAMES = ["", " ", "a b", ":", "::x", "é", "日本", "\N{PILE OF POO}", "\0", "a\r\nb", "g", "k", "=", "-", "x" * 1000]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=KINDS)
def url_and_kind(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    name, kind = request.param.split("-")
    if name == "memory":
        return f"memory://{uuid4().hex}", kind
    if name == "sqlite":
        return f"sqlite:///{tmp_path}/sessions.db", kind
    server: Valkey = request.getfixturevalue("valkey")
    return server.url, kind


@pytest.fixture
def store(url_and_kind: tuple[str, str], clock: FakeClock) -> Generator[Face]:
    url, kind = url_and_kind
    with face(kind, url, clock, timeout=5.0) as one:
        yield one


@pytest.fixture
def other(url_and_kind: tuple[str, str], clock: FakeClock) -> Generator[Face]:
    """The same data, as another replica sees it."""
    url, _ = url_and_kind
    with face("sync", url, clock, timeout=5.0) as one:
        yield one


@pytest.fixture
def key() -> str:
    return f"v1:{uuid4().hex}"


def change(**options: object) -> Change:
    return Change(**{"generation": 0, **options})  # type: ignore[arg-type]


def test_a_created_record_is_loaded_as_it_was(store: Face, other: Face, clock: FakeClock, key: str) -> None:
    """Every part of a record comes back exactly, times to the last bit, in this replica and in another."""
    now = clock.time() + 1 / 3
    kept = Record(
        {"a": b"1", "b": bytes(range(256)), "empty": b""}, now, now + 0.1, now + 60.7, owner="ü:1", generation=7
    )
    assert store.create(key, kept) is True
    assert store.load(key) == kept
    assert other.load(key) == kept
    assert isinstance(store.load(key).fields["a"], bytes)  # type: ignore[union-attr]


def test_an_absent_key_is_none_and_stays_so(store: Face, key: str) -> None:
    """Loading creates nothing."""
    assert store.load(key) is None
    assert store.load(key) is None


def test_create_refuses_a_live_key(store: Face, other: Face, clock: FakeClock, key: str) -> None:
    """The first create wins, and the second one changes nothing."""
    assert store.create(key, record(clock.time(), a=b"first"))
    assert other.create(key, record(clock.time(), a=b"second", b=b"second")) is False
    assert store.load(key) == record(clock.time(), a=b"first")


def test_create_replaces_an_expired_record_whole(store: Face, clock: FakeClock, key: str) -> None:
    """Nothing of the old record shines through."""
    old = replace(record(clock.time(), a=b"old", b=b"old"), owner="old", generation=3)
    store.create(key, old)
    clock.advance(3600)
    new = record(clock.time(), a=b"new")
    assert store.create(key, new) is True
    assert store.load(key) == new


def test_a_record_is_absent_at_its_expiry(store: Face, clock: FakeClock, key: str) -> None:
    """`expires <= now` is expired: one instant before it is not."""
    store.create(key, record(clock.time(), a=b"1"))
    clock.advance(3599.5)
    assert store.load(key) is not None
    clock.advance(0.5)
    assert store.load(key) is None
    assert store.update(key, change(put={"a": b"2"}, expires=clock.time() + 60)) is GONE
    assert store.load(key) is None


def test_delete_is_idempotent(store: Face, clock: FakeClock, key: str) -> None:
    """Deleting what is absent is fine, and a deleted key may be created again."""
    store.delete(key)
    store.create(key, record(clock.time(), a=b"1"))
    store.delete(key)
    store.delete(key)
    assert store.load(key) is None
    assert store.create(key, record(clock.time()))
    assert store.load(key) == record(clock.time())


def test_update_puts_and_drops(store: Face, other: Face, clock: FakeClock, key: str) -> None:
    """Fields are set, replaced and removed; the others, and the rest of the record, stay."""
    store.create(key, record(clock.time(), a=b"1", b=b"2", c=b"3"))
    done = store.update(key, change(put={"b": b"two", "d": b"4"}, drop=frozenset({"c", "never there"})))
    assert done is APPLIED
    assert other.load(key) == record(clock.time(), a=b"1", b=b"two", d=b"4")


def test_a_name_in_put_and_drop_is_put(store: Face, clock: FakeClock, key: str) -> None:
    """Drops come first."""
    store.create(key, record(clock.time(), a=b"1"))
    assert store.update(key, change(put={"a": b"2"}, drop=frozenset({"a"}))) is APPLIED
    assert store.load(key) == record(clock.time(), a=b"2")


def test_all_fields_may_be_dropped(store: Face, clock: FakeClock, key: str) -> None:
    """A record without fields is still a record."""
    store.create(key, record(clock.time(), a=b"1"))
    assert store.update(key, change(drop=frozenset({"a"}))) is APPLIED
    assert store.load(key) == record(clock.time())


def test_concurrent_changes_of_different_keys_merge(store: Face, other: Face, clock: FakeClock, key: str) -> None:
    """Two requests that loaded the same session and write different keys both survive."""
    store.create(key, record(clock.time(), a=b"1"))
    mine, theirs = store.load(key), other.load(key)
    assert mine is not None
    assert theirs is not None
    assert store.update(key, change(generation=mine.generation, put={"mine": b"m"})) is APPLIED
    done = other.update(key, change(generation=theirs.generation, put={"theirs": b"t"}, drop=frozenset({"a"})))
    assert done is APPLIED
    assert store.load(key) == record(clock.time(), mine=b"m", theirs=b"t")


def test_update_never_creates(store: Face, key: str) -> None:
    """A change to a record that never was is GONE."""
    assert store.update(key, change(put={"a": b"1"}, expires=math.inf)) is GONE
    assert store.load(key) is None


def test_update_does_not_resurrect_a_session_logged_out_elsewhere(
    store: Face, other: Face, clock: FakeClock, key: str
) -> None:
    """A slow request that commits after a logout brings nothing back."""
    store.create(key, record(clock.time(), user=b"u"))
    loaded = store.load(key)
    assert loaded is not None
    other.delete(key)
    assert store.update(key, change(put={"user": b"u"}, touched=clock.time())) is GONE
    assert store.load(key) is None
    assert other.load(key) is None


def test_update_needs_the_generation(store: Face, other: Face, clock: FakeClock, key: str) -> None:
    """After a strict rotation, requests that loaded before it write nothing; neither do guesses ahead."""
    store.create(key, record(clock.time(), a=b"1"))
    assert other.update(key, change(put={"user": b"u"}, raise_generation=True)) is APPLIED
    before = store.load(key)
    assert before is not None
    assert before.generation == 1
    for generation in (0, 2, -1):
        assert store.update(key, change(generation=generation, put={"a": b"late"}, owner="x")) is GONE
    assert store.load(key) == before
    assert store.update(key, change(generation=1, put={"a": b"2"})) is APPLIED


@pytest.mark.parametrize(
    "expect",
    [{"a": b"0"}, {"a": None}, {"missing": b""}, {"a": b"1", "b": b"1"}, {"a": b""}, {"a": b"1\0"}],
    ids=str,
)
def test_expect_that_fails_writes_nothing(
    store: Face, clock: FakeClock, key: str, expect: dict[str, bytes | None]
) -> None:
    """One field that differs stops the whole change."""
    kept = record(clock.time(), a=b"1", b=b"2")
    store.create(key, kept)
    wanted = change(
        expect=expect,
        put={"a": b"x", "new": b"x"},
        drop=frozenset({"b"}),
        touched=clock.time() + 5,
        expires=clock.time() + 9999,
        owner="o",
        raise_generation=True,
        delete_if_only="",
    )
    assert store.update(key, wanted) is CONFLICT
    assert store.load(key) == kept


def test_expect_that_holds(store: Face, clock: FakeClock, key: str) -> None:
    """Present bytes, empty bytes and absence can be expected; GONE is told before CONFLICT."""
    store.create(key, record(clock.time(), a=b"1", empty=b""))
    expect = {"a": b"1", "empty": b"", "missing": None}
    assert store.update(key, change(expect=expect, put={"missing": b"2"})) is APPLIED
    assert store.update(key, change(expect=expect, put={"missing": b"3"})) is CONFLICT
    assert store.update(key, change(generation=9, expect=expect)) is GONE
    assert store.load(key) == record(clock.time(), a=b"1", empty=b"", missing=b"2")


def test_delete_if_only_deletes_what_is_left_empty(store: Face, clock: FakeClock, key: str) -> None:
    """Without another field than the reserved ones the record goes, and the key is free again."""
    store.create(key, replace(record(clock.time(), a=b"1", **{"~proof": b"p"}), owner="o"))
    assert store.update(key, change(drop=frozenset({"a"}), delete_if_only="~")) is EMPTIED
    assert store.load(key) is None
    assert store.update(key, change(put={"a": b"2"})) is GONE
    assert store.create(key, record(clock.time()))


def test_delete_if_only_spares_a_field_written_in_parallel(
    store: Face, other: Face, clock: FakeClock, key: str
) -> None:
    """The last key is removed while another request adds one: the session lives, with that key."""
    store.create(key, record(clock.time(), a=b"1", **{"~proof": b"p"}))
    assert other.update(key, change(put={"b": b"2"})) is APPLIED
    assert store.update(key, change(drop=frozenset({"a"}), delete_if_only="~")) is APPLIED
    assert store.load(key) == record(clock.time(), b=b"2", **{"~proof": b"p"})


def test_delete_if_only_sees_its_own_put(store: Face, clock: FakeClock, key: str) -> None:
    """What the same change puts counts: another name keeps the record, a reserved one does not."""
    store.create(key, record(clock.time(), a=b"1"))
    drop = frozenset({"a"})
    assert store.update(key, change(drop=drop, put={"b": b"2"}, delete_if_only="~")) is APPLIED
    assert store.update(key, change(drop=frozenset({"b"}), put={"b": b"3"}, delete_if_only="~")) is APPLIED
    assert store.load(key) == record(clock.time(), b=b"3")
    gone = change(drop=frozenset({"b"}), put={"~p": b"x"}, delete_if_only="~", raise_generation=True)
    assert store.update(key, gone) is EMPTIED
    assert store.load(key) is None


def test_an_empty_prefix_covers_every_name(store: Face, clock: FakeClock, key: str) -> None:
    """`delete_if_only=""` is literal: all names start with it."""
    store.create(key, record(clock.time(), a=b"1"))
    assert store.update(key, change(delete_if_only="")) is EMPTIED
    assert store.load(key) is None


def test_times_never_move_back(store: Face, other: Face, clock: FakeClock, key: str) -> None:
    """A slow request can neither shorten a session nor make it look older; None leaves both alone."""
    now = clock.time()
    store.create(key, record(now))
    store.update(key, change(touched=now + 50, expires=now + 5000))
    other.update(key, change(touched=now + 10, expires=now + 60))
    other.update(key, change(put={"a": b"1"}))
    assert store.load(key) == Record({"a": b"1"}, now, now + 50, now + 5000)


def test_a_touch_lets_a_record_live_longer(store: Face, clock: FakeClock, key: str) -> None:
    """The new expiry holds, in the store's own forgetting too."""
    now = clock.time()
    store.create(key, replace(record(now, a=b"1"), expires=now + 1))
    assert store.update(key, change(expires=now + 100)) is APPLIED
    clock.advance(99)
    assert store.load(key) is not None
    clock.advance(1)
    assert store.load(key) is None


def test_owner_is_set_kept_and_removed(store: Face, other: Face, clock: FakeClock, key: str) -> None:
    """None leaves the owner, "" removes it; a record made with "" has none."""
    seen = []
    store.create(key, replace(record(clock.time()), owner=""))
    for owner in (None, "-", "=", "user 1", None, "", None, "日本"):
        assert other.update(key, change(owner=owner)) is APPLIED
        loaded = store.load(key)
        assert loaded is not None
        seen.append(loaded.owner)
    assert seen == [None, "-", "=", "user 1", "user 1", None, None, "日本"]


def test_odd_field_names(store: Face, other: Face, clock: FakeClock, key: str) -> None:
    """Names are any text; none collides with what the store keeps beside the fields."""
    fields = {name: f"value of {name!r}".encode() for name in ODD_NAMES}
    store.create(key, with_fields(record(clock.time()), fields))
    loaded = other.load(key)
    assert loaded is not None
    assert loaded.fields == fields
    dropped = frozenset(ODD_NAMES[::2])
    expect = {name: fields[name] for name in ODD_NAMES}
    put = dict.fromkeys(ODD_NAMES[1::2], b"new")
    assert store.update(key, change(drop=dropped, expect=expect, put=put)) is APPLIED
    loaded = other.load(key)
    assert loaded is not None
    assert loaded.fields == put


@pytest.mark.parametrize("value", [b"", b"\0", b"\r\n$5\r\nhello", bytes(range(256)) * 4096], ids=len)
def test_binary_values(store: Face, clock: FakeClock, key: str, value: bytes) -> None:
    """Values are any bytes, up to a megabyte here."""
    store.create(key, record(clock.time(), a=value))
    assert store.update(key, change(expect={"a": value}, put={"b": value})) is APPLIED
    assert store.load(key) == record(clock.time(), a=value, b=value)


def test_many_fields(store: Face, other: Face, clock: FakeClock, key: str) -> None:
    """Five thousand fields are created, replaced, expected and dropped in one step each."""
    fields = {f"field {n}": b"%d" % n for n in range(5000)}
    store.create(key, with_fields(record(clock.time()), fields))
    new = dict.fromkeys(fields, b"new")
    assert store.update(key, change(put=new, expect=fields)) is APPLIED
    assert other.load(key) == with_fields(record(clock.time()), new)
    assert store.update(key, change(drop=frozenset(fields), delete_if_only="~")) is EMPTIED
    store.create(key, with_fields(record(clock.time()), {}))
    assert store.update(key, change(put=fields)) is APPLIED
    assert store.update(key, change(drop=frozenset(fields))) is APPLIED
    assert other.load(key) == record(clock.time())


def test_a_change_that_fails_writes_nothing(store: Face, clock: FakeClock, key: str) -> None:
    """A name that can't be encoded is a ValueError before anything is written, wherever it stands."""
    bad = "\ud800"
    kept = record(clock.time(), a=b"1")
    store.create(key, kept)
    for wanted in (
        change(put={"a": b"2", bad: b"x", "z": b"3"}, owner="o"),
        change(put={"a": b"2"}, drop=frozenset({bad})),
        change(put={"a": b"2"}, expect={bad: None}),
        change(put={"a": b"2"}, owner=bad),
    ):
        with pytest.raises(ValueError):
            store.update(key, wanted)
        assert store.load(key) == kept
    with pytest.raises(ValueError):
        store.create(f"{key}2", with_fields(kept, {"a": b"1", bad: b"2"}))
    assert store.load(f"{key}2") is None
    assert store.update(key, change(put={"b": b"2"})) is APPLIED


def test_far_expiry(store: Face, clock: FakeClock, key: str) -> None:
    """An expiry centuries away, or never, is kept as it is."""
    for n, expires in enumerate((1e13, math.inf)):
        far = replace(record(clock.time(), a=b"1"), expires=expires)
        assert store.create(f"{key}{n}", far)
        assert store.load(f"{key}{n}") == far
        assert store.create(f"{key}{n}", far) is False
        assert store.update(f"{key}{n}", change(put={"b": b"2"}, expires=math.inf)) is APPLIED
        assert store.load(f"{key}{n}") == replace(far, fields={"a": b"1", "b": b"2"}, expires=math.inf)


def test_records_do_not_mix(store: Face, clock: FakeClock, key: str) -> None:
    """Keys that look alike are different sessions."""
    keys = [key, f"{key} ", f"{key}:", key.upper(), f"{key}é"]
    for one in keys:
        assert store.create(one, record(clock.time(), name=one.encode()))
    store.delete(keys[1])
    for one in (*keys[:1], *keys[2:]):
        loaded = store.load(one)
        assert loaded is not None
        assert loaded.fields == {"name": one.encode()}


def test_the_store_opens_again_after_close(store: Face, clock: FakeClock, key: str) -> None:
    """Closing twice is fine, and the next verb works."""
    store.create(key, record(clock.time(), a=b"1"))
    store.close()
    store.close()
    assert store.load(key) == record(clock.time(), a=b"1")


def test_threads_lose_no_field(url_and_kind: tuple[str, str], clock: FakeClock, key: str) -> None:
    """Eight threads, each with a key of its own in one session, write twenty-five times each: all is there."""
    url, kind = url_and_kind
    start, done = Barrier(8), []

    def write(name: str) -> None:
        with face(kind, url, clock, timeout=30.0) as mine:
            start.wait(10)
            for n in range(25):
                assert mine.update(key, change(put={f"{name} {n}": b"x"}, touched=clock.time() + n)) is APPLIED
            done.append(name)

    with face(kind, url, clock, timeout=30.0) as keeper:
        keeper.create(key, record(clock.time()))
        threads = [Thread(target=write, args=(f"t{n}",)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        loaded = keeper.load(key)
    assert len(done) == 8
    assert loaded is not None
    assert len(loaded.fields) == 200
    assert loaded.touched == clock.time() + 24


@pytest.mark.parametrize("url_and_kind", ASYNC_KINDS, indirect=True)
def test_tasks_lose_no_field(url_and_kind: tuple[str, str], clock: FakeClock, key: str) -> None:
    """A hundred tasks on one loop write their own key at once, each load in between sees whole changes only."""
    url, _ = url_and_kind

    async def main() -> Record | None:
        store = open_async_store(url, clock=clock, timeout=30.0)
        await store.create(key, record(clock.time()))

        async def write(n: int) -> None:
            assert await store.update(key, change(put={f"a{n}": b"x", f"b{n}": b"x"})) is APPLIED
            seen = await store.load(key)
            assert seen is not None
            assert {name[1:] for name in seen.fields if name[0] == "a"} == {
                name[1:] for name in seen.fields if name[0] == "b"
            }

        await asyncio.gather(*(write(n) for n in range(100)))
        loaded = await store.load(key)
        await store.aclose()
        return loaded

    loaded = asyncio.run(main())
    assert loaded is not None
    assert len(loaded.fields) == 200


def test_a_counter_with_expect_loses_no_count(url_and_kind: tuple[str, str], clock: FakeClock, key: str) -> None:
    """Read, add one, write if unchanged, else again: from six threads every step is counted."""
    url, kind = url_and_kind

    def count() -> None:
        with face(kind, url, clock, timeout=30.0) as mine:
            for _ in range(20):
                while True:
                    loaded = mine.load(key)
                    assert loaded is not None
                    n = loaded.fields["n"]
                    if mine.update(key, change(expect={"n": n}, put={"n": b"%d" % (int(n) + 1)})) is APPLIED:
                        break

    with face(kind, url, clock, timeout=30.0) as keeper:
        keeper.create(key, record(clock.time(), n=b"0"))
        threads = [Thread(target=count) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        loaded = keeper.load(key)
    assert loaded is not None
    assert loaded.fields["n"] == b"120"


@pytest.mark.parametrize("url_and_kind", PURGEABLE, indirect=True)
def test_purge_deletes_what_has_expired(store: Face, clock: FakeClock, key: str) -> None:
    """Stores that do not forget by themselves delete expired records, at most `limit` at once, and no live one."""
    assert isinstance(store.store, Purgeable)
    for n in range(5):
        store.create(f"{key}{n}", replace(record(clock.time()), expires=clock.time() + 10))
    store.create(key, record(clock.time()))
    clock.advance(10)
    assert store.store.purge(3) == 3
    assert store.store.purge() == 2
    assert store.store.purge() == 0
    assert store.load(key) is not None


@pytest.mark.parametrize("url_and_kind", IMMEDIATE, indirect=True)
def test_load_now_is_load(store: Face, clock: FakeClock, key: str) -> None:
    """A store that can be asked on the loop's own thread answers there as it does elsewhere."""
    assert isinstance(store.store, ImmediateLoad)
    store.create(key, record(clock.time(), a=b"1"))
    assert store.store.load_now(key) == store.load(key) == record(clock.time(), a=b"1")
    clock.advance(3600)
    assert store.store.load_now(key) is None
