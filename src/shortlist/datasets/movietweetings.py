"""MovieTweetings 100K as project tables: films that people rated in tweets, from the publisher's repository or a local folder."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
from rich.console import Console

from shortlist.datasets.download import download_file, has_hash
from shortlist.datasets.movietweetings_texts import README, settings_text
from shortlist.datasets.project_folder import Project, file_sha256
from shortlist.datasets.separated_rows import separated_rows
from shortlist.errors import FetchError

MOVIES, RATINGS = "movies.dat", "ratings.dat"
# The commit that added the snapshot, so that the hashes below hold whatever the branch becomes.
SNAPSHOT = "https://raw.githubusercontent.com/sidooms/MovieTweetings/4d8280a3f1ea83e3e23f13d1710d19f43564274f/snapshots/100K"
PUBLISHED = {
    MOVIES: "e63fb84bc734e3c574f135634a40d3cbafab22b8f94f5fc0b80f80d1d2076efc",
    RATINGS: "c0dd868c2632d10002ebc928ddc5345f33adeaa59eca52c2941c26a2c5e36fd6",
}
TITLE_AND_YEAR = r"^(.+) \((\d{4})\)$"
BEST_RATING = 10
LATEST_S = 10**11  # in the year 5138: beyond are milliseconds


def fetch_movietweetings(folder: Path, console: Console, *, files: Path | None = None, published: Mapping[str, str] = PUBLISHED) -> Project:
    """The tables and texts of MovieTweetings.

    files      a folder with movies.dat and ratings.dat, of this or another snapshot; None: the publisher's, kept in `folder`/download
    published  the SHA-256 by which a downloaded file is known
    Raises     FetchError where a file cannot be had, or holds what it should not
    """
    if files is None:
        files, source = folder / "download", f"the files {MOVIES} and {RATINGS} as published at {SNAPSHOT}"
        _download(files, published, console)
    else:
        source = "a local folder with " + " and ".join(f"{name} (SHA-256 {_local_sha256(files, name)})" for name in (MOVIES, RATINGS))
    movies = separated_rows(str(files / MOVIES), _text(files / MOVIES), "::", ["item_id", "title", "genres"])
    ratings = separated_rows(str(files / RATINGS), _text(files / RATINGS), "::", ["user_id", "item_id", "rating", "timestamp"])
    items, item_counts = item_table(movies, rated=ratings["item_id"])
    events = event_table(ratings)
    last_day = datetime.fromtimestamp(int(events["timestamp"][-1]), UTC).date() - timedelta(days=1)
    readme = README.format(source=source)
    return Project({"events": events, "items": items}, settings_text(last_day), readme, source, item_counts)


def event_table(ratings: pl.DataFrame) -> pl.DataFrame:
    """One row per rating, by time: user_id and item_id (strings), rating (0 to 10), timestamp (seconds since 1970).

    ratings  the fields of ratings.dat, as strings
    Raises   FetchError for a rating or time that is no whole number, a rating off the scale, or times that are not seconds
    """
    try:
        events = ratings.select("user_id", "item_id", pl.col("rating").cast(pl.Int8), pl.col("timestamp").cast(pl.Int64))
    except pl.exceptions.InvalidOperationError as error:
        raise FetchError(f"{RATINGS} must have whole numbers as ratings and times; got: {error}; fetch it again") from None
    for column, most, rule in (
        ("rating", BEST_RATING, f"ratings from 0 to {BEST_RATING}"),
        ("timestamp", LATEST_S, "times in seconds since 1970"),
    ):
        stray = events.filter(~pl.col(column).is_between(0, most))
        if stray.height:
            raise FetchError(f"{RATINGS} must have {rule}; got {stray[column][0]}; fetch it again")
    return events.sort("timestamp", "user_id", "item_id")


def item_table(movies: pl.DataFrame, *, rated: pl.Series) -> tuple[pl.DataFrame, dict[str, int]]:
    """One row per film, by id, and how many films lack what: item_id, title, year, genres (a sorted list, perhaps empty).

    movies  the fields of movies.dat, as strings; the year stands behind the title, in brackets
    rated   ids of films; one that `movies` does not describe has neither title nor year
    Raises  FetchError for an id that is described twice
    """
    if movies["item_id"].is_duplicated().any():
        repeated = movies["item_id"].filter(movies["item_id"].is_duplicated())[0]
        raise FetchError(f"{MOVIES} must describe a film once; got {repeated!r} more than once; fetch it again")
    described = movies.select(
        "item_id",
        title=pl.coalesce(pl.col("title").str.extract(TITLE_AND_YEAR, 1), "title"),
        year=pl.col("title").str.extract(TITLE_AND_YEAR, 2).cast(pl.Int64),
        genres=pl.when(pl.col("genres") == "").then(pl.lit([], pl.List(pl.String))).otherwise(pl.col("genres").str.split("|").list.sort()),
    )
    unknown = pl.DataFrame({"item_id": rated.unique()}).join(described, on="item_id", how="anti")
    bare = unknown.with_columns(pl.lit([], pl.List(pl.String)).alias("genres"))
    counts = {
        "films_never_rated": described.join(pl.DataFrame({"item_id": rated}), on="item_id", how="anti").height,
        "films_rated_but_not_described": bare.height,
        "described_films_without_year": described["year"].null_count(),
        "described_films_without_genre": int((described["genres"].list.len() == 0).sum()),
    }
    return pl.concat([described, bare], how="diagonal").sort("item_id"), counts


def _download(folder: Path, published: Mapping[str, str], console: Console) -> None:
    """Nothing; `folder` holds both files as published: what lies there already is not fetched again."""
    for name, sha256 in published.items():
        if has_hash(folder / name, sha256):
            continue
        try:
            download_file(f"{SNAPSHOT}/{name}", folder / name, sha256, console)
        except FetchError as error:
            raise FetchError(f"{error}. By hand: name a folder that holds {MOVIES} and {RATINGS} with --from") from None


def _local_sha256(folder: Path, name: str) -> str:
    if not (folder / name).is_file():
        raise FetchError(f"{folder} must hold {MOVIES} and {RATINGS}; it has no {name}; name the folder of a snapshot with --from")
    return file_sha256(folder / name)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise FetchError(f"{path} must be UTF-8 text; got other bytes ({error}); fetch it again") from None
