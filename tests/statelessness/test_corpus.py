"""Small apps, each with one way to keep state or to look as if it did, and what a check says of them."""

from __future__ import annotations

import os
import runpy
import shutil
from pathlib import Path

import pytest

from unsticky.clock import SystemClock
from unsticky.statelessness.check import Checked, Plan, check
from unsticky.statelessness.findings import Verdict

CORPUS = Path(__file__).parent / "corpus"
LEAKY = sorted(path.stem for path in (CORPUS / "leaky").glob("*.py"))
CLEAN = sorted(path.stem for path in (CORPUS / "clean").glob("*.py"))

# What no request changes can't be put back, and an iterator can't be set back.
UNCONFIRMED = {"hash_seed", "process_salt", "secret_key", "iterator"}


def checked(kind: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, isolation: str = "auto") -> Checked:
    """The check of an app of the corpus, from a directory with nothing but the app."""
    path = shutil.copy(CORPUS / kind / f"{name}.py", tmp_path)
    monkeypatch.chdir(tmp_path)
    found = check(Plan(app=f"{name}:app", script=str(path), isolation=isolation, replicas=2), SystemClock())
    left = {entry.name for entry in os.scandir(tmp_path)} - {f"{name}.py", "__pycache__"}
    assert not left, "a check leaves no file behind"
    return found


def test_the_corpus_is_large_enough() -> None:
    assert len(LEAKY) >= 30
    assert len(CLEAN) >= 20


@pytest.mark.parametrize("name", LEAKY)
def test_a_leak_is_proven_and_its_place_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = checked("leaky", name, tmp_path, monkeypatch)
    proofs = found.of(Verdict.PROVEN)
    assert proofs, found.findings
    suspect = runpy.run_path(str(CORPUS / "leaky" / f"{name}.py"))["SUSPECT"]
    if suspect:  # a few leave no trace that can be named
        assert any(suspect in one.name for proof in proofs for one in proof.suspects), proofs
    sure = [one.name for proof in proofs for one in proof.suspects if one.confirmed]
    if name in UNCONFIRMED:
        assert not sure
    else:
        assert any(suspect in one for one in sure), proofs


@pytest.mark.parametrize("name", CLEAN)
def test_what_only_looks_suspicious_is_not_proven(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = checked("clean", name, tmp_path, monkeypatch)
    assert not found.of(Verdict.PROVEN)
    assert not found.of(Verdict.SUSPECT)
    assert not found.of(Verdict.INCONCLUSIVE)


@pytest.mark.parametrize("name", ["local_file", "sqlite", "upload", "global_dict"])
def test_without_namespaces_files_are_swapped(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = checked("leaky", name, tmp_path, monkeypatch, isolation="swap")
    assert found.isolation == "swap"
    assert found.of(Verdict.PROVEN)
