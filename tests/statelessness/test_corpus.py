"""Small apps, each with one way to keep state or to look as if it did, and what a check says of them."""

from __future__ import annotations

import ast
import gc
import os
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
UNCONFIRMED = {
    "hash_seed", "process_salt", "secret_key", "iterator", "generator",
    "boot_beside_hits", "boot_beside_upload", "iterator_beside_boot", "process_number",
}  # fmt: skip


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


def suspect_of(name: str) -> str:
    """Read, not run: an app that is made may hold what has to be closed."""
    tree = ast.parse((CORPUS / "leaky" / f"{name}.py").read_text())
    (value,) = (
        node.value for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "SUSPECT"
    )
    return str(ast.literal_eval(value) or "")


@pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning")  # of the app that is its own script
@pytest.mark.parametrize("name", LEAKY)
def test_a_leak_is_proven_and_its_place_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = checked("leaky", name, tmp_path, monkeypatch)
    proofs = found.of(Verdict.PROVEN)
    assert proofs, found.findings
    suspect = suspect_of(name)
    if name == "sqlite_memory":
        gc.collect()
    if suspect:  # a few leave no trace that can be named
        assert any(suspect in one.name for proof in proofs for one in proof.suspects), proofs
    sure = [one.name for proof in proofs for one in proof.suspects if one.confirmed]
    if name in UNCONFIRMED:
        assert not sure
    else:
        assert any(suspect in one for one in sure), proofs


def test_what_each_process_made_stands_first_if_the_response_shows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request changed another variable, which was put back in vain."""
    (proof,) = checked("leaky", "boot_beside_hits", tmp_path, monkeypatch).of(Verdict.PROVEN)
    boot, hits = proof.suspects
    assert boot.name == "boot_beside_hits:BOOT"
    assert not boot.changed
    assert hits.name.startswith("boot_beside_hits:HITS")
    assert hits.tried
    assert not hits.confirmed
    assert "made anew by each process" in proof.advice


def test_what_each_process_made_stands_first_if_forks_of_one_process_agree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The response does not show the key, and the file that was written was put back in vain."""
    (proof,) = checked("leaky", "boot_beside_upload", tmp_path, monkeypatch).of(Verdict.PROVEN)
    key, file = proof.suspects
    assert key.name == "boot_beside_upload:KEY"
    assert key.why.endswith("forks of one agree")
    assert file.tried
    assert "made anew by each process" in proof.advice


def test_what_forks_of_one_process_do_not_agree_on_is_not_what_the_process_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An iterator can't be put back; that the process has a key, too, is no suspicion."""
    (proof,) = checked("leaky", "iterator_beside_boot", tmp_path, monkeypatch).of(Verdict.PROVEN)
    assert [one.name for one in proof.suspects] == ["iterator_beside_boot:NUMBERS"]


def test_what_was_put_back_in_vain_may_not_be_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (proof,) = checked("leaky", "process_number", tmp_path, monkeypatch).of(Verdict.PROVEN)
    assert "; if that is not it, look for hash() of a text, id(), the process's number" in proof.advice


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
