"""MovieTweetings in the publisher's format: hand-made tables, what is missing in them, and where the files come from."""

from __future__ import annotations

import hashlib
import json
from datetime import date
from functools import partial
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from small_fetch import Publisher, put, quiet, said

from shortlist.config import load_config
from shortlist.datasets import fetch
from shortlist.datasets.movietweetings import SNAPSHOT, event_table, fetch_movietweetings, item_table
from shortlist.errors import FetchError
from shortlist.project import describe, open_project
from shortlist.sections import feature_settings

MOVIES = """\
0002844::Fantômas - À l'ombre de la guillotine (1913)::Crime|Drama
1300854::Iron Man Three (2013)::Sci-Fi|Action
0421715::Benjamin (Button) (2008)::Drama
2524674::Feuchtgebiete (2013)::
0107290::Jurassic Park::Adventure
"""
# 1377993600 is 2013-09-01 00:00:00 UTC; two ratings of one instant stand in another order than they must come out
RATINGS = """\
10::1300854::7::1377993600
10::0002844::10::1377993500
2::1300854::0::1377993500
2::0107290::8::1378067265
7::9999999::5::1377900000
7::2524674::6::1377820799
7::1300854::6::1377820800
"""
FILES = {"movies.dat": MOVIES.encode(), "ratings.dat": RATINGS.encode()}


def snapshot(folder: Path, **changed: bytes) -> Path:
    """A folder with both files, `movies=` and `ratings=` instead of the usual ones."""
    for name, content in FILES.items():
        put(folder / name, changed.get(name.partition(".")[0], content))
    return folder


def test_a_local_snapshot_gives_these_tables(tmp_path: Path) -> None:
    tables = fetch_movietweetings(tmp_path / "project", quiet(), files=snapshot(tmp_path / "files")).tables
    assert tables["events"].rows() == [  # by time, then user as text: "10" before "2"
        ("7", "2524674", 6, 1377820799),
        ("7", "1300854", 6, 1377820800),
        ("7", "9999999", 5, 1377900000),
        ("10", "0002844", 10, 1377993500),
        ("2", "1300854", 0, 1377993500),
        ("10", "1300854", 7, 1377993600),
        ("2", "0107290", 8, 1378067265),
    ]
    assert tables["items"].rows() == [
        ("0002844", "Fantômas - À l'ombre de la guillotine", 1913, ["Crime", "Drama"]),
        ("0107290", "Jurassic Park", None, ["Adventure"]),  # no year: the title stays whole
        ("0421715", "Benjamin (Button)", 2008, ["Drama"]),  # never rated, and in the corpus
        ("1300854", "Iron Man Three", 2013, ["Action", "Sci-Fi"]),
        ("2524674", "Feuchtgebiete", 2013, []),
        ("9999999", None, None, []),  # rated, not described
    ]
    assert tables["events"].schema == {"user_id": pl.String, "item_id": pl.String, "rating": pl.Int8, "timestamp": pl.Int64}
    assert tables["items"].schema == {"item_id": pl.String, "title": pl.String, "year": pl.Int64, "genres": pl.List(pl.String)}


def test_what_is_missing_is_counted_recorded_and_printed(tmp_path: Path) -> None:
    console = quiet()
    fetch.fetch_project("movietweetings", tmp_path / "project", console=console, files=snapshot(tmp_path / "files"))
    record = json.loads((tmp_path / "project" / "fetch.json").read_text())
    assert record["counts"] == {
        "films_never_rated": 1,
        "films_rated_but_not_described": 1,
        "described_films_without_year": 1,
        "described_films_without_genre": 1,
    }
    assert "1  films rated but not described" in said(console)
    for content in FILES.values():
        assert hashlib.sha256(content).hexdigest() in record["source"]
    assert str(tmp_path) not in record["source"]
    assert "MIT" in (tmp_path / "project" / "README.txt").read_text()


def test_the_project_opens_and_tests_the_week_before_the_last_day(tmp_path: Path) -> None:
    path = fetch.fetch_project("movietweetings", tmp_path / "project", console=quiet(), files=snapshot(tmp_path / "files"))
    config = load_config(path)
    assert config.evaluate.last_day == date(2013, 8, 31)  # the last rating is of 2013-09-01, 20:27
    assert (config.evaluate.train_days, config.evaluate.test_days, config.evaluate.shifts) == (30, 1, 7)
    assert "rating" not in feature_settings(config.query) and feature_settings(config.query)["history"].last == 50
    facts = describe(open_project(config))
    assert facts["events"]["rows"] == 7 and facts["items"]["rows"] == 6
    assert "leave_out" not in str(facts["events"])  # the film that is not described is an item, so no event is lost


def test_all_described_and_all_rated_counts_nothing() -> None:
    movies = pl.DataFrame({"item_id": ["1"], "title": ["A (2001)"], "genres": ["Drama"]})
    items, counts = item_table(movies, rated=pl.Series(["1", "1"]))
    assert items.rows() == [("1", "A", 2001, ["Drama"])] and set(counts.values()) == {0}


def test_files_of_windows_line_ends_give_the_same_tables(tmp_path: Path) -> None:
    ours = fetch_movietweetings(tmp_path, quiet(), files=snapshot(tmp_path / "a"))
    theirs = {name.partition(".")[0]: content.replace(b"\n", b"\r\n") for name, content in FILES.items()}
    for table, frame in fetch_movietweetings(tmp_path, quiet(), files=snapshot(tmp_path / "b", **theirs)).tables.items():
        assert_frame_equal(frame, ours.tables[table])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"ratings": b"1::2::3::4\n1::2::3\n"}, r"ratings\.dat must have 4 fields in every line; got 3 in line 2"),
        ({"movies": b"1::A :: B (2001)::Drama\n"}, r"movies\.dat must have 3 fields in every line; got 4 in line 1"),
        ({"movies": MOVIES.encode("latin-1")}, r"movies\.dat must be UTF-8 text"),
        ({"movies": b"1::A (2001)::\n1::B (2002)::\n"}, r"movies\.dat must describe a film once; got '1'"),
        ({"ratings": b"1::2::good::4\n"}, r"ratings\.dat must have whole numbers as ratings and times"),
        ({"ratings": b"1::2::3::1377993600000\n"}, r"ratings\.dat must have times in seconds since 1970; got 1377993600000"),
        ({"ratings": b"1::2::11::4\n"}, r"ratings\.dat must have ratings from 0 to 10; got 11"),
    ],
)
def test_files_that_are_not_as_published_are_refused(tmp_path: Path, changed: dict[str, bytes], message: str) -> None:
    with pytest.raises(FetchError, match=message):
        fetch_movietweetings(tmp_path, quiet(), files=snapshot(tmp_path / "files", **changed))


@pytest.mark.parametrize("rating", [0, 10])
def test_the_ends_of_the_scale_are_ratings(rating: int) -> None:
    ratings = pl.DataFrame({"user_id": ["1"], "item_id": ["2"], "rating": [str(rating)], "timestamp": ["3"]})
    assert event_table(ratings)["rating"].to_list() == [rating]


def test_a_folder_without_one_of_the_files_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "movies.dat", FILES["movies.dat"])
    with pytest.raises(FetchError, match=r"must hold movies\.dat and ratings\.dat; it has no ratings\.dat; name the folder .* with --from"):
        fetch_movietweetings(tmp_path / "project", quiet(), files=tmp_path)


@pytest.fixture
def small_publication(monkeypatch: pytest.MonkeyPatch) -> Publisher:
    """A publisher whose files are the small ones, known to the fetcher by their hashes."""
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}
    small = fetch.Dataset("small", partial(fetch_movietweetings, published=hashes), reads_folder=True)
    monkeypatch.setitem(fetch.DATASETS, "movietweetings", small)
    publisher = Publisher(monkeypatch)
    publisher.files = dict(FILES)
    return publisher


def test_the_publisher_and_a_local_folder_give_the_same_bytes(tmp_path: Path, small_publication: Publisher) -> None:
    fetch.fetch_project("movietweetings", tmp_path / "a", console=quiet())
    fetch.fetch_project("movietweetings", tmp_path / "b", console=quiet(), files=snapshot(tmp_path / "files"))
    assert small_publication.asked == [f"{SNAPSHOT}/movies.dat", f"{SNAPSHOT}/ratings.dat"]
    for table in ("events.parquet", "items.parquet"):
        assert (tmp_path / "a" / table).read_bytes() == (tmp_path / "b" / table).read_bytes()
    assert SNAPSHOT in json.loads((tmp_path / "a" / "fetch.json").read_text())["source"]


def test_a_file_that_lies_in_the_download_folder_is_not_fetched_again(tmp_path: Path, small_publication: Publisher) -> None:
    put(tmp_path / "download" / "movies.dat", FILES["movies.dat"])
    put(tmp_path / "download" / "ratings.dat", FILES["ratings.dat"][:-9])  # cut off: another hash
    fetch.fetch_project("movietweetings", tmp_path, console=quiet())
    assert small_publication.asked == [f"{SNAPSHOT}/ratings.dat"]


def test_a_download_that_is_not_the_published_file_is_refused_and_removed(tmp_path: Path, small_publication: Publisher) -> None:
    small_publication.files["movies.dat"] = b"<html>404</html>"
    got = hashlib.sha256(b"<html>404</html>").hexdigest()
    with pytest.raises(FetchError, match=rf"movies\.dat must have the SHA-256 \w+; got {got}.*By hand: name a folder .* with --from"):
        fetch.fetch_project("movietweetings", tmp_path, console=quiet())
    assert list((tmp_path / "download").iterdir()) == [] and not (tmp_path / "fetch.json").exists()


def test_a_publisher_out_of_reach_is_an_error_that_names_the_way_round(tmp_path: Path, small_publication: Publisher) -> None:
    small_publication.files = {}
    with pytest.raises(FetchError, match=r"movies\.dat must be reachable; got: no route to host\. By hand: name a folder .* with --from"):
        fetch.fetch_project("movietweetings", tmp_path, console=quiet())


def test_a_local_folder_is_read_again_though_the_project_is_complete(tmp_path: Path) -> None:
    files = snapshot(tmp_path / "files")
    fetch.fetch_project("movietweetings", tmp_path / "project", console=quiet(), files=files)
    snapshot(files, ratings=RATINGS.partition("\n")[0].encode())
    fetch.fetch_project("movietweetings", tmp_path / "project", console=quiet(), files=files)
    assert pl.read_parquet(tmp_path / "project" / "events.parquet").height == 1


def test_a_local_folder_goes_only_with_datasets_that_read_one(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=r"read from a local folder \(movietweetings, online-retail\); got debian; leave it out"):
        fetch.fetch_project("debian", tmp_path, console=quiet(), files=tmp_path)
