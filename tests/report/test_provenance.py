"""The record of how an evaluation was made says what is needed to make it again."""

from __future__ import annotations

import subprocess
from datetime import datetime
from pathlib import Path

import pytest

from shortlist import __version__
from shortlist.report import provenance
from shortlist.report.provenance import how_made


def test_the_command_can_be_pasted_and_the_versions_are_those_in_use() -> None:
    made = how_made(["evaluate", "a folder/shortlist.toml", "--set", "x=$HOME"])
    assert made["command"] == "shortlist evaluate 'a folder/shortlist.toml' --set 'x=$HOME'"
    assert made["versions"]["shortlist"] == __version__ and {"python", "numpy", "polars"} <= set(made["versions"])
    assert datetime.fromisoformat(made["finished"]).tzinfo is not None


def test_the_commit_is_that_of_the_checkout_and_says_when_it_was_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*words: str) -> None:
        subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@t", *words], cwd=tmp_path, check=True, capture_output=True)

    file = tmp_path / "provenance.py"
    file.write_text("a = 1\n")
    monkeypatch.setattr(provenance, "__file__", str(file))
    assert how_made([])["commit"] is None  # no checkout
    git("init")
    assert how_made([])["commit"] is None  # a checkout of something else
    git("add", "provenance.py")
    git("commit", "-m", "one")
    commit = how_made([])["commit"]
    assert commit is not None and len(commit) == 40
    file.write_text("a = 2\n")
    assert how_made([])["commit"] == f"{commit} with uncommitted changes"


def test_without_git_the_commit_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert how_made([])["commit"] is None
