"""Boots and replicas, without a check around them."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.waiting import eventually
from unsticky.statelessness.fleet import Fleet

APP = """
from unsticky.statelessness import orphans
orphans.clean_up = lambda *given: open("cleaned", "w").close()
def app(environ, start_response):
    start_response("200 OK", [])
    return [b""]
"""


def test_an_interpreter_that_is_told_to_end_does_not_look_whether_the_check_is_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks for two seconds, and a check of an app with threads ends some dozens of them."""
    (tmp_path / "shop.py").write_text(APP)
    monkeypatch.chdir(tmp_path)
    with Fleet("shop:app", boots=1, isolation="none") as fleet:
        fleet.fresh(0).end()
        assert not (tmp_path / "cleaned").exists()
        fleet.fresh(0)._connection.close()  # as when the check was killed
        eventually((tmp_path / "cleaned").exists)
