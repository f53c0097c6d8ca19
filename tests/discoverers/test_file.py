"""Endpoints from real files, that change in all the ways that files change."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path

import pytest

from unsticky.discoverers import DiscoveryError, Endpoint
from unsticky.discoverers.file import FileDiscovery, parsed


def found(source: FileDiscovery) -> set[str]:
    return {one.address for one in asyncio.run(source.discover())}


@pytest.mark.parametrize(
    ("data", "as_json"),
    [
        (b'endpoints = ["http://a:1", { url = "http://b:2", weight = 3, priority = 1, locality = "z" }]', False),
        (
            b'[[endpoints]]\nurl = "http://a:1"\n[[endpoints]]\nurl = "http://b:2"\nweight = 3\npriority = 1\n'
            b'locality = "z"\n',
            False,
        ),
        (b'["http://a:1", {"url": "http://b:2", "weight": 3, "priority": 1, "locality": "z"}]', True),
        (b'\xef\xbb\xbf{"endpoints": ["http://a:1", {"url": "http://b:2", "weight":3, "priority":1, "locality":"z"}]}',
         True),
    ],
)  # fmt: skip
def test_forms(data: bytes, as_json: bool) -> None:
    """The shape of `endpoints` in settings, in TOML and JSON."""
    expected = {Endpoint.of("http://a:1"), Endpoint.of("http://b:2", weight=3, priority=1, locality="z")}
    assert parsed(data, as_json=as_json) == expected


@pytest.mark.parametrize(
    ("data", "as_json", "text"),
    [
        (b'endpoints = ["http://a:1", ', False, "not TOML: "),
        (b'{"endpoints": ["http://a', True, "not JSON: "),
        (b"\xff\xfe", False, "not TOML: "),
        (b"", False, "endpoints: required, but not set"),
        (b"5", True, "endpoints: expected a list, got 5"),
        (b'endpoint = ["http://a:1"]', False, 'endpoint: unknown key, did you mean "endpoints"?'),
        (b'["http://a:1", "b:2"]', True, "endpoints[1]: expected an origin"),
        (b'[{"url": "http://a", "wait": 3}]', True, 'endpoints[0].wait: unknown key, did you mean "weight"?'),
        (b"[" * 100_000, True, "not JSON: "),
    ],
)
def test_what_makes_no_sense(data: bytes, as_json: bool, text: str) -> None:
    """Everything that is wrong is said, by its place."""
    with pytest.raises(DiscoveryError) as caught:
        parsed(data, as_json=as_json)
    assert text in str(caught.value)


def test_changes(tmp_path: Path) -> None:
    """Written over, renamed into place, by a symbolic link that leads elsewhere; missing, and there again."""
    path = tmp_path / "endpoints.json"
    path.write_text('["http://a:1"]')
    source = FileDiscovery(path)
    assert found(source) == {"a:1"}
    path.write_text('["http://b:1"]')
    assert found(source) == {"b:1"}
    (tmp_path / "new").write_text('["http://c:1"]')
    os.replace(tmp_path / "new", path)
    assert found(source) == {"c:1"}
    path.unlink()
    with pytest.raises(DiscoveryError, match="No such file"):
        found(source)
    for name in ("d", "e"):
        (tmp_path / name).write_text(f'["http://{name}:1"]')
        (tmp_path / "link").symlink_to(tmp_path / name)
        os.replace(tmp_path / "link", path)
        assert found(source) == {f"{name}:1"}


def test_a_file_that_did_not_change_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One look at its state is enough."""
    path = tmp_path / "endpoints.toml"
    path.write_text('endpoints = ["http://a:1"]')
    source = FileDiscovery(path)
    found(source)
    monkeypatch.setattr(Path, "read_bytes", None)
    assert found(source) == {"a:1"}


def test_a_file_that_is_being_written_is_left_alone(tmp_path: Path) -> None:
    """A valid beginning of a list is never taken for the list."""
    path = tmp_path / "endpoints.toml"
    lines = [f'[[endpoints]]\nurl = "http://h{n}:1"\n' for n in range(30)]
    path.write_text("".join(lines))
    source = FileDiscovery(path, settled=0.5)
    assert len(found(source)) == 30

    def write() -> None:
        with path.open("w") as file:
            for line in lines[:20]:
                file.write(line)
                file.flush()
                time.sleep(0.02)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        while writer.is_alive():
            assert len(found(source)) in (20, 30)
    finally:
        writer.join()
    assert len(found(source)) == 20


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    """Is not opened: that could wait for ever, as could reading it."""
    os.mkfifo(tmp_path / "fifo")
    for path, kind in ((tmp_path / "fifo", "a FIFO"), (Path("/dev/zero"), "a device"), (tmp_path, "a directory")):
        with pytest.raises(DiscoveryError, match=f"it is {kind}, not a regular file"):
            found(FileDiscovery(path))


def test_a_directory_and_a_file_that_nobody_may_read(tmp_path: Path) -> None:
    """Are no endpoints, and no crash."""
    with pytest.raises(DiscoveryError, match="directory"):
        found(FileDiscovery(tmp_path))
    if os.geteuid():
        closed = tmp_path / "closed.toml"
        closed.touch(mode=0)
        with pytest.raises(DiscoveryError, match="Permission denied"):
            found(FileDiscovery(closed))
