"""The background thread: lazy, shared, surviving fork, and gone when nothing needs it."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
from collections.abc import Generator
from contextvars import ContextVar

import pytest

from support.waiting import eventually
from unsticky.testing import FakeClock
from unsticky.worker import Worker


@pytest.fixture
def worker() -> Generator[Worker]:
    worker = Worker()
    yield worker
    worker.close()
    assert not threads()


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "unsticky-worker"]


def test_nothing_runs_at_import() -> None:
    """Importing the module starts no thread."""
    code = "import threading, unsticky.worker; assert threading.active_count() == 1"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_result_comes_back_and_the_thread_ends(worker: Worker) -> None:
    """A submitted coroutine runs in the worker's thread, which ends when nothing is left."""

    async def where() -> str:
        return threading.current_thread().name

    assert worker.submit(where()).result(5) == "unsticky-worker"
    eventually(lambda: not threads())
    assert worker.submit(where()).result(5) == "unsticky-worker"


def test_work_does_not_keep_its_callers_context(worker: Worker) -> None:
    """It outlives the request that started it, and must neither hold that request nor add to its span."""
    request: ContextVar[str] = ContextVar("request", default="none")
    request.set("the caller's")
    seen: list[str] = []

    async def look() -> None:
        seen.append(request.get())

    worker.submit(look()).result(5)
    periodic = worker.every(3600, look)
    eventually(lambda: len(seen) == 2)
    periodic.release()
    hold = worker.hold()
    worker.call_soon(lambda: seen.append(request.get()))
    eventually(lambda: len(seen) == 3)
    hold.release()
    assert seen == ["none"] * 3


def test_errors_come_back(worker: Worker) -> None:
    """What a coroutine raises is raised at the future."""

    async def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        worker.submit(fail()).result(5)


def test_one_thread_for_all(worker: Worker) -> None:
    """Many callers at once share one thread."""
    gate = threading.Barrier(8)
    seen: set[int] = set()

    async def ident() -> int:
        return threading.get_ident()

    def call() -> None:
        gate.wait()
        seen.add(worker.submit(ident()).result(5))

    with_hold = worker.hold()
    callers = [threading.Thread(target=call) for _ in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(seen) == 1
    with_hold.release()
    with_hold.release()
    assert not worker.running


def test_periodic_tasks_run_again_after_an_error(worker: Worker, caplog: pytest.LogCaptureFixture) -> None:
    """A failing round is logged and the next one comes; release stops it for good."""
    rounds = []

    async def round_() -> None:
        rounds.append(1)
        if len(rounds) == 1:
            raise ValueError("first")

    periodic = worker.every(0.001, round_)
    eventually(lambda: len(rounds) >= 3)
    periodic.release()
    assert not worker.running
    assert "periodic task failed" in caplog.text


def test_a_task_that_fails_again_and_again_is_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """With its traceback the first time, later with how often."""
    clock = FakeClock()
    worker = Worker(clock=clock)
    rounds = []

    async def fail() -> None:
        rounds.append(1)
        raise ValueError("no")

    periodic = worker.every(0.001, fail)
    try:
        eventually(lambda: len(rounds) >= 20)
        assert [record.exc_info is not None for record in caplog.records] == [True]
        clock.advance(60)
        eventually(lambda: len(caplog.records) == 2)
        text = caplog.records[1].getMessage()
        assert "times in 60 s: ValueError" in text
        assert int(text.split("again, ")[1].split()[0]) >= 19
    finally:
        periodic.release()


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_nothing_that_a_task_raises_ends_the_loop(
    worker: Worker, caplog: pytest.LogCaptureFixture, kind: type[BaseException]
) -> None:
    """Neither from a periodic task nor from one that it started; and the end comes all the same."""
    rounds, others = [], []

    async def leave() -> None:
        raise kind

    async def round_() -> None:
        rounds.append(asyncio.create_task(leave()))
        await leave()

    async def other() -> None:
        others.append(1)

    held = [worker.every(0.001, round_), worker.every(0.001, other)]
    eventually(lambda: len(rounds) >= 3)
    before = len(others)
    eventually(lambda: len(others) > before)
    for hold in held:
        hold.release()
    assert not worker.running
    assert f"a task in the background raised {kind.__name__}" in caplog.text
    assert all(isinstance(task.exception(), kind) for task in rounds if not task.cancelled())


def test_a_thread_that_hangs_is_left_behind(worker: Worker) -> None:
    """What blocks is waited for at the end, but not for ever."""
    go, began = threading.Event(), threading.Event()

    def hang() -> None:
        began.set()
        go.wait(60)

    future = worker.submit(asyncio.to_thread(hang))
    assert began.wait(5)
    worker.close()
    try:
        assert future.cancelled()
        assert not threads()
    finally:
        go.set()


def test_release_waits_for_the_task_to_end(worker: Worker) -> None:
    """After release no part of the task runs any more, even while another task keeps the thread."""
    hold = worker.hold()
    ended = []
    began = threading.Event()

    async def linger() -> None:
        began.set()
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            ended.append(True)

    periodic = worker.every(60, linger)
    assert began.wait(5)
    periodic.release()
    assert ended == [True]
    assert worker.running
    hold.release()


def test_a_task_may_release_itself(worker: Worker) -> None:
    """Releasing from within the worker's own thread does not wait for itself."""
    done = threading.Event()

    async def once() -> None:
        periodic.release()
        done.set()

    hold = worker.hold()
    ready = threading.Event()

    async def guarded() -> None:
        if ready.is_set():
            await once()

    periodic = worker.every(0.001, guarded)
    ready.set()
    assert done.wait(5)
    hold.release()
    eventually(lambda: not threads())


def test_close_cancels_what_runs(worker: Worker) -> None:
    """close() cancels running tasks and waits for the thread."""

    async def forever() -> None:
        await asyncio.sleep(3600)

    future = worker.submit(forever())
    worker.close()
    assert future.cancelled()
    assert not threads()


def test_call_soon_only_when_running(worker: Worker) -> None:
    """call_soon starts nothing by itself."""
    called = threading.Event()
    assert not worker.call_soon(called.set)
    hold = worker.hold()
    assert worker.call_soon(called.set)
    assert called.wait(5)
    hold.release()


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_starts_its_own(worker: Worker) -> None:
    """After fork the child has a thread of its own, and the parent's goes on undisturbed."""

    async def pid() -> int:
        return os.getpid()

    hold = worker.hold()
    assert worker.submit(pid()).result(5) == os.getpid()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover - another process
        try:
            gc.collect()
            assert not worker.running
            os.write(writer, str(worker.submit(pid()).result(5)).encode())
            hold.release()  # the parent's: of no effect here
        finally:
            os._exit(0)
    os.close(writer)
    assert int(os.read(reader, 20)) == child
    os.waitpid(child, 0)
    os.close(reader)
    assert worker.submit(pid()).result(5) == os.getpid()
    hold.release()


def test_the_interpreter_ends_with_tasks_running() -> None:
    """A program that forgets to close ends cleanly and says nothing."""
    code = (
        "import asyncio, unsticky.worker as w\n"
        "async def tick(): await asyncio.sleep(0)\n"
        "w.worker.every(0.001, tick)\n"
        "w.worker.submit(asyncio.to_thread(len, ())).result(5)\n"
    )
    done = subprocess.run([sys.executable, "-X", "dev", "-c", code], capture_output=True, timeout=20, check=True)
    assert done.stderr == b""
