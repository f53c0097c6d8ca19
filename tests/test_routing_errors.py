"""Errors of calls over pools, as programs hand them on: copied, and to other processes."""

from __future__ import annotations

import copy
import importlib
import pickle
import subprocess
import sys
from typing import Any

import pytest

from support.pools import LIBRARIES, both, pools_over
from support.ports import free_port
from unsticky import errors

NAMES = [
    "AttemptsFailed",
    "AttemptsFailedToConnect",
    "AttemptsTimedOut",
    "CallTimeout",
    "DeadlineExceeded",
    "NoHealthyEndpoint",
]
COPIES = [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))]


def refused(library: str, port: int) -> Any:
    """The error of a call whose one endpoint does not accept."""
    raised = pytest.raises(errors.AttemptsFailed)
    with pools_over(library, [f"http://127.0.0.1:{port}"]) as pools, pools.client() as client, raised as caught:
        client.get("http://catalog/items")
    return caught.value


def same(one: errors.RoutingError, other: errors.RoutingError) -> bool:
    return (type(one), str(one), one.pool, one.attempts) == (type(other), str(other), other.pool, other.attempts)


@both
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("copied", COPIES)
def test_copies(library: str, name: str, copied: Any) -> None:
    """A copy is of the same class, and keeps message, pool, attempts and notes."""
    kind = getattr(importlib.import_module(f"unsticky.{library}"), name)
    error = kind(
        "it failed", pool="catalog", attempts=[errors.FailedAttempt("10.0.0.1:8000", "refused", failure="connect")]
    )
    error.add_note("seen")
    made = copied(error)
    assert made is not error
    assert same(made, error)
    assert made.__notes__ == ["seen"]


@pytest.mark.parametrize("name", ["RoutingError", "AttemptsFailed", "CallTimeout", "NoHealthyEndpoint"])
@pytest.mark.parametrize("copied", COPIES)
def test_copies_of_our_own(name: str, copied: Any) -> None:
    """The errors that no client library is behind can be copied as well."""
    error = getattr(errors, name)(
        "it failed", pool="catalog", attempts=(errors.FailedAttempt("a:80", "status 503", status=503),)
    )
    assert same(copied(error), error)


@both
@pytest.mark.parametrize("copied", COPIES)
def test_a_copy_has_its_request(library: str, copied: Any) -> None:
    """What a call raised keeps `.request`, as the library's own errors do."""
    error = refused(library, free_port())
    made = copied(error)
    assert same(made, error)
    assert str(made.request.url) == "http://catalog/items"


@both
def test_names(library: str) -> None:
    """A traceback's name for the error is one that the module has, and says what happened."""
    error = refused(library, free_port())
    assert type(error).__qualname__ == "AttemptsFailedToConnect"
    assert getattr(importlib.import_module(type(error).__module__), type(error).__name__) is type(error)
    assert isinstance(error, LIBRARIES[library].ConnectError)


CHILD = """
import pickle, sys
from unsticky import Pools
pools = Pools.from_settings({"client": sys.argv[1], "pools": {"catalog": {"endpoints": [sys.argv[2]]}}})
with pools, pools.client() as client:
    try:
        client.get("http://catalog/items")
    except Exception as error:
        sys.stdout.buffer.write(pickle.dumps(error))
"""


@both
def test_from_another_process(library: str) -> None:
    """What a call raised in another process arrives here as itself."""
    child = [sys.executable, "-c", CHILD, library, f"http://127.0.0.1:{free_port()}"]
    error = pickle.loads(subprocess.run(child, capture_output=True, check=True).stdout)
    assert isinstance(error, LIBRARIES[library].ConnectError)
    assert isinstance(error, errors.AttemptsFailed)
    assert same(error, copy.copy(error))
    assert error.pool == "catalog"
    assert len(error.attempts) > 1
