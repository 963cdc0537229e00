"""Every command that the README shows runs, in its order, on a small project where the README has MovieLens."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from shortlist.cli import main
from shortlist.datasets.movielens_texts import settings_text

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
COMMANDS = [line[2:] for line in README.splitlines() if line.startswith("$ shortlist ")]
TINY = ["--set", "model.hidden=[16, 8]", "--set", "model.embedding_dim=8", "--set", "evaluate.bootstrap=10"]
TITLES = ["Alien (1979)", "Blade Runner (1982)", "Terminator, The (1984)", *(f"Film {number} (1990)" for number in range(40))]


def write_movielens_like(folder: Path) -> None:
    """The tables that `fetch movielens-1m` writes, small, with ratings on all 31 days up to 2000-12-17."""
    rng = np.random.default_rng(0)
    end, count, users = 977_097_600, 700, 31  # the end is 2000-12-18 00:00 UTC
    times = np.sort(rng.integers(end - 31 * 86_400, end, count))
    folder.mkdir(parents=True)
    pl.DataFrame(
        {
            "user_id": rng.integers(1, users + 1, count),
            "item_id": rng.choice(TITLES, count),
            "rating": rng.integers(1, 6, count).astype(np.int8),
            "timestamp": times,
        }
    ).write_parquet(folder / "events.parquet")
    rows = range(len(TITLES))
    pl.DataFrame(
        {
            "item_id": TITLES,
            "title": [title[:-7] for title in TITLES],
            "year": [1979 + row % 20 for row in rows],
            "genres": [["Sci-Fi", "Drama"][: 1 + row % 2] for row in rows],
        }
    ).write_parquet(folder / "items.parquet")
    ids = range(1, users + 1)
    pl.DataFrame(
        {
            "user_id": list(ids),
            "gender": ["F" if user % 2 else "M" for user in ids],
            "age": [18 + user % 3 for user in ids],
            "occupation": [user % 5 for user in ids],
            "zip_code": ["00000" for _ in ids],
        }
    ).write_parquet(folder / "users.parquet")
    (folder / "shortlist.toml").write_text(settings_text("movielens-1m", "2000-12-17"))


def test_the_readme_shows_the_way_from_fetch_to_recommend() -> None:
    assert [shlex.split(command)[1] for command in COMMANDS] == ["fetch", "check", "evaluate", "publish", "recommend"]


def test_every_command_of_the_readme_runs_in_its_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for command in COMMANDS:
        words = shlex.split(command)[1:]
        if words[0] == "fetch":  # the suite has no network: its own tests prove what fetch writes
            write_movielens_like(Path(words[-1]))
            continue
        assert main([*words, *TINY] if words[0] in ("check", "evaluate") else words) == 0, command
    assert "Film " in capsys.readouterr().out
