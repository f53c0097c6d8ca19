"""What other processes do to a store in the tests: run as a script, `store_worker.py TASK URL KEY [ARGUMENTS]`.

Each task prints "ready", starts when a line comes in, and prints its result as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
from random import random
from threading import Event, Thread
from typing import Any

from unsticky.clock import SystemClock
from unsticky.session.store import Applied, Change, Store
from unsticky.stores import open_async_store, open_store

Put = Callable[[str, bytes], Applied]


def ready() -> None:
    print("ready", flush=True)
    sys.stdin.readline()


def opened(url: str) -> Store:
    return open_store(url, clock=SystemClock(), timeout=30.0)


def in_threads(work: Callable[[int], None], threads: int) -> None:
    running = [Thread(target=work, args=(n,)) for n in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()


def hammer(url: str, key: str, name: str, threads: str, count: str) -> Any:
    """Each thread puts `count` fields of its own."""
    store = opened(url)
    done: list[Applied] = []

    def work(thread: int) -> None:
        for n in range(int(count)):
            done.append(store.update(key, Change(generation=0, put={f"{name} {thread} {n}": b"x"})))

    ready()
    in_threads(work, int(threads))
    store.close()
    return sum(one is Applied.APPLIED for one in done)


def hammer_async(url: str, key: str, name: str, tasks: str, count: str) -> Any:
    """The same from tasks of one event loop."""
    ready()

    async def main() -> int:
        store = open_async_store(url, clock=SystemClock(), timeout=30.0)

        async def work(task: int) -> int:
            applied = 0
            for n in range(int(count)):
                done = await store.update(key, Change(generation=0, put={f"{name} {task} {n}": b"x"}))
                applied += done is Applied.APPLIED
            return applied

        results = await asyncio.gather(*(work(n) for n in range(int(tasks))))
        await store.aclose()
        return sum(results)

    return asyncio.run(main())


def count(url: str, key: str, threads: str, steps: str) -> Any:
    """Each thread raises the counter `n` by `steps`, with compare and set."""
    store = opened(url)

    def step() -> bool:
        loaded = store.load(key)
        assert loaded is not None
        n = loaded.fields["n"]
        change = Change(generation=0, expect={"n": n}, put={"n": b"%d" % (int(n) + 1)})
        return store.update(key, change) is Applied.APPLIED

    def work(_: int) -> None:
        for _ in range(int(steps)):
            while not step():
                pass

    ready()
    in_threads(work, int(threads))
    store.close()
    return True


def endless(url: str, key: str) -> Any:
    """Put the fields `a` and `b` to the same number for ever, and say each number that the store has confirmed."""
    store = opened(url)
    ready()
    n = 0
    while True:
        n += 1
        value = b"%d" % n
        assert store.update(key, Change(generation=0, put={"a": value, "b": value})) is Applied.APPLIED
        print(n, flush=True)


def first_use(url: str, key: str) -> Any:
    """Create a session as the very first operation."""
    from unsticky.session.store import Record

    store = opened(url)
    ready()
    now = SystemClock.time()
    created = store.create(key, Record({"a": b"1"}, now, now, now + 60))
    store.close()
    return created


def full_disk(url: str, key: str) -> Any:
    """Put fields until the file may not grow any more: how many were confirmed, and the error's text."""
    import resource

    from unsticky.errors import StoreError

    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, resource.RLIM_INFINITY))
    store = opened(url)
    ready()
    confirmed = 0
    try:
        while confirmed < 1000:
            store.update(key, Change(generation=0, put={f"{confirmed}": bytes(10_000)}))
            confirmed += 1
    except StoreError as error:
        found = store.load(key)
        assert found is not None
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert store.update(key, Change(generation=0, put={"after": b"x"})) is Applied.APPLIED
        store.close()
        return confirmed, len(found.fields), str(error)
    return None


def fork(url: str, key: str) -> Any:
    """Children of a process that has used the store write while the parent closes it; nobody loses anything."""
    store = opened(url)
    store.load(key)
    begin, go = os.pipe()
    ready()
    children = [_forked(store, key, f"child {n}", begin) for n in range(2)]
    for n in range(40):
        if n == 20:
            store.close()  # the last one out would delete the log under the children, if they had no locks of their own
            os.write(go, b"..")
        assert store.update(key, Change(generation=0, put={f"parent {n}": b"x"})) is Applied.APPLIED
    statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    store.close()
    return statuses


def _forked(store: Store, key: str, name: str, begin: int) -> int:
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        store.update(key, Change(generation=0, put={f"{name} first": b"x"}))
        os.read(begin, 1)
        for n in range(20):
            assert store.update(key, Change(generation=0, put={f"{name} {n}": b"x"})) is Applied.APPLIED
        store.close()
        status = 0
    finally:
        os._exit(status)


def fork_busy(url: str, key: str, children: str) -> Any:
    """A process forks while its threads write, and close the store again and again; then each child writes."""
    store, over = opened(url), Event()
    done: list[Applied] = []

    def work(thread: int) -> None:
        while not over.wait(random() / 500):
            put = {f"large {thread}": b"x" * 100_000, f"thread {thread} {len(done)}": b"x"}
            done.append(store.update(key, Change(generation=0, put=put)))
            store.close()  # what is closed last is slow: it puts the log away

    threads = [Thread(target=work, args=(n,)) for n in range(3)]
    ready()
    for thread in threads:
        thread.start()
    statuses = [_written_by_child(store, key, f"child {n}") for n in range(int(children))]
    over.set()
    for thread in threads:
        thread.join()
    store.close()
    return statuses, len(done)


def _written_by_child(store: Store, key: str, name: str) -> int:
    child = os.fork()
    if not child:
        try:
            os._exit(store.update(key, Change(generation=0, put={name: b"x"})) is not Applied.APPLIED)
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def fork_loop(url: str, key: str) -> Any:
    """A child that inherits a used async store runs its own loop with it; the parent's connection lives on."""
    store = open_async_store(url, clock=SystemClock(), timeout=30.0)
    ready()
    with asyncio.Runner() as runner:

        async def put(name: str) -> bool:
            return await store.update(key, Change(generation=0, put={name: b"x"})) is Applied.APPLIED

        assert runner.run(put("parent before"))
        child = os.fork()
        if not child:
            asyncio.set_event_loop(None)
            asyncio.events._set_running_loop(None)
            os._exit(0 if asyncio.new_event_loop().run_until_complete(put("child")) else 1)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert runner.run(put("parent after"))
        runner.run(store.aclose())
    return status


TASKS = (hammer, hammer_async, count, endless, first_use, full_disk, fork, fork_busy, fork_loop)

if __name__ == "__main__":
    _, task, *arguments = sys.argv
    result = {one.__name__: one for one in TASKS}[task](*arguments)
    print(json.dumps(result), flush=True)
