"""Preparation by blocks makes the arrays that preparation of whole columns made, on logs with everything that is awkward."""

from __future__ import annotations

import gc
import itertools
import weakref
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from small_project import silent

from shortlist import backtest, dataset, files, histories, id_places, user_order
from shortlist.backtest import train_latest
from shortlist.config import config_from_tree
from shortlist.dataset import Dataset, Examples, make_dataset
from shortlist.errors import DataError
from shortlist.features.arrays import FeatureArray, flat_arrays
from shortlist.id_places import row_blocks
from shortlist.log import EventLog
from shortlist.project import Project, open_project
from shortlist.queries import Queries, without_seed
from shortlist.run import PreparedRun, prepare_run, train_run
from shortlist.sections import Config

FILES, ROWS, ITEMS, USERS = 3, 71, 23, 13


def write_awkward(folder: Path, *, text_users: bool, own: tuple[str, ...] = ()) -> None:
    """Three files whose times overlap, with ties, nobody's events, unknown items, nulls everywhere; items and users tables."""
    rng = np.random.default_rng(5)
    for file in range(FILES):
        users = [None if value % 7 == 6 else int(value) - 5 for value in rng.integers(0, USERS, ROWS)]
        columns: dict[str, Any] = {
            "user": [None if user is None else f"u{user}" for user in users] if text_users else users,
            "item": [f"i{value:02d}" for value in rng.integers(0, ITEMS + 3, ROWS)],  # the last three are unknown
            "at": 1_700_000_000 + rng.integers(0, 40, ROWS),  # 213 events at 40 instants
            "stars": rng.choice([0.0, 0.5, 2.0], ROWS),
            "day": [None if value == 3 else f"day {value}" for value in rng.integers(0, 5, ROWS)],
            "tags": [None if value == 4 else [f"t{tag}" for tag in range(value)] for value in rng.integers(0, 5, ROWS)],
            "page": [None if value % 5 == 0 else float(value) for value in rng.integers(0, 50, ROWS)],
        }
        if "seed" in own:
            columns["seed"] = [None if value % 4 == 0 else f"i{value:02d}" for value in rng.integers(0, ITEMS + 3, ROWS)]
        if "history" in own:
            columns["history"] = [None if not n else [f"i{v:02d}" for v in rng.integers(0, ITEMS + 3, n)] for n in rng.integers(0, 5, ROWS)]
        pl.DataFrame(columns).write_parquet(folder / f"events-{file}.parquet", row_group_size=17)
    pl.DataFrame({"item": [f"i{row:02d}" for row in range(ITEMS)], "price": np.arange(ITEMS) * 1.5}).write_parquet(folder / "items.parquet")
    names = [f"u{row}" for row in range(-3, 5)] if text_users else list(range(-3, 5))
    pl.DataFrame({"user": names, "age": ["x", "y"] * 4}).write_parquet(folder / "users.parquet")


def awkward_config(folder: Path, *, own: tuple[str, ...] = (), ties: str = "hidden") -> Config:
    return config_from_tree(
        {
            "data": {
                "events": str(folder / "events-*.parquet"),
                "items": str(folder / "items.parquet"),
                "users": str(folder / "users.parquet"),
                "unknown_items": "leave_out",
            },
            "columns": {
                **{role: role for role in ("user", "item", *own)},
                "time": "at",
                "weight": "stars",
                **({"ties": ties} if ties != "hidden" else {}),
            },
            "item": {"features": {"item": "id", "price": "number"}},
            "query": {
                "features": {
                    "seed": "item",
                    "history": {"kind": "items", "last": 5},
                    "users.age": "category",
                    "day": {"kind": "category", "unknown_buckets": 2},
                    "tags": "categories",
                    "page": {"kind": "number", "buckets": 3},
                }
            },
            "model": {"embedding_dim": 4, "hidden": [7, 5]},
            "negatives": {"batch_size": 16, "index_batch_size": 11},
            "train": {"epochs": 1},
            "evaluate": {"protocol": "holdout"},
        }
    )


def by_sorting(
    log: EventLog, item_row: NDArray[np.int32], in_order: bool, remembered: NDArray[np.bool_] | None
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
    """Histories as they were derived before: every column whole, one sort by user, time and row."""
    count = len(log)
    user = (log.frame["user"].rank("dense").cast(pl.Int64) - 1).fill_null(-1).to_numpy()
    time = log.frame["time"].to_numpy()
    order = np.lexsort((np.arange(count), time, user))
    user, moment = user[order], time[order]
    kept = np.ones(count, bool) if remembered is None else remembered[order]
    before = np.concatenate([[0], np.cumsum(kept)])
    place = np.arange(count)
    new_user = np.ones(count, bool)
    new_user[1:] = user[1:] != user[:-1]
    new_instant = new_user.copy()
    new_instant[1:] |= moment[1:] != moment[:-1]
    first_of_user = np.maximum.accumulate(np.where(new_user, place, 0))
    first_of_instant = np.maximum.accumulate(np.where(new_instant, place, 0))
    sees_until = np.where(user < 0, first_of_user, place if in_order else first_of_instant)
    start, end = np.zeros(count, np.int64), np.zeros(count, np.int64)
    start[order], end[order] = before[first_of_user], before[sees_until]
    return item_row[order][kept], start, end


def whole(made: Dataset, project: Project, log: EventLog, remembered: NDArray[np.bool_] | None = None) -> Examples:
    """The examples as they were made before: every column whole, under the same encoders."""
    frame = log.frame
    item_row = project.items.rows_of(frame["item"]).astype(np.int32)
    queries: Queries = made.query_encoder.encode(frame, project.items, project.users)
    if "history" not in frame.columns:
        past = by_sorting(log, item_row, project.config.columns.ties == "in_order", remembered)
        queries = replace(queries, history_items=past[0], history_start=past[1], history_end=past[2])
        queries = queries.looking_at_newest(without_seed(frame))
    numbers = (frame["user"].hash(seed=0) // 2).cast(pl.Int64)
    asker = pl.select(pl.when(frame["user"].is_not_null()).then(numbers).otherwise(-1)).to_series().to_numpy()
    return Examples(queries, item_row, frame["weight"].to_numpy(), frame["time"].to_numpy(), asker)


def columns_of(examples: Examples) -> Mapping[str, NDArray[Any]]:
    queries = examples.queries
    context: dict[str, FeatureArray] = queries.context
    return {
        **{name: getattr(examples, name) for name in ("item_row", "weight", "time", "asker")},
        **{name: getattr(queries, name) for name in ("seed_row", "user_row", "history_items", "history_start", "history_end")},
        **flat_arrays(context),
    }


def assert_same(found: Examples, expected: Examples) -> None:
    ours, theirs = columns_of(found), columns_of(expected)
    assert list(ours) == list(theirs)
    for name, array in theirs.items():
        assert np.asarray(ours[name]).shape == array.shape, name
        assert np.array_equal(ours[name], array), name
        if not name.startswith("history_"):  # positions are narrower than they were
            assert ours[name].dtype == array.dtype, name


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a few rows everywhere."""
    monkeypatch.setattr(files, "ROWS_AT_ONCE", 13)
    monkeypatch.setattr(user_order, "ROWS_AT_ONCE", 11)
    monkeypatch.setattr(id_places, "ROWS_AT_ONCE", 1)
    for module, size in ((dataset, 7), (histories, 5)):
        monkeypatch.setattr(module, "row_blocks", partial(row_blocks, size=size))


CASES = list(itertools.product([False, True], [(), ("seed",), ("history",), ("seed", "history")], ["hidden", "in_order"]))


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(("text_users", "own", "ties"), CASES)
def test_blocks_make_the_arrays_that_whole_columns_made(tmp_path: Path, text_users: bool, own: tuple[str, ...], ties: str) -> None:
    write_awkward(tmp_path, text_users=text_users, own=own)
    project = open_project(awkward_config(tmp_path, own=own, ties=ties))
    log = project.log
    assert log.left_out and log.frame["user"].null_count() and not log.frame["time"].is_duplicated().not_().all()
    made = make_dataset(project, log, folder=tmp_path / "examples")
    assert_same(made.train, whole(made, project, log))
    assert_same(make_dataset(project, log).train, made.train)  # in memory
    assert isinstance(made.train.item_row, np.memmap)
    assert made.item_counts.tolist() == np.bincount(made.train.item_row, minlength=ITEMS).tolist()


@pytest.mark.usefixtures("small_blocks")
def test_what_is_not_remembered_is_in_no_history_by_blocks_either(tmp_path: Path) -> None:
    write_awkward(tmp_path, text_users=True)
    project = open_project(awkward_config(tmp_path))
    remembered = np.random.default_rng(0).random(len(project.log)) < 0.6
    made = make_dataset(project, project.log)
    expected = by_sorting(project.log, made.train.item_row, False, remembered)
    found = histories.derived_histories(
        project.log.frame["user"], project.log.frame["time"], made.train.item_row, in_order=False, remembered=remembered
    )
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == np.int32 and np.array_equal(ours, theirs)


@pytest.mark.usefixtures("small_blocks")
def test_rows_are_the_rows_of_the_files_whatever_the_row_groups(tmp_path: Path) -> None:
    write_awkward(tmp_path, text_users=False)
    log = open_project(awkward_config(tmp_path)).log
    whole_files = [pl.read_parquet(tmp_path / f"events-{file}.parquet") for file in range(FILES)]
    for row in range(0, len(log), 5):
        name, _, number = log.place(row).partition(" row ")
        source = whole_files[int(name[7])].row(int(number) - 1, named=True)
        assert (source["user"], source["item"]) == (log.frame["user"][row], log.frame["item"][row])
        assert source["at"] * 1_000_000 == log.frame["time"][row]


@pytest.mark.usefixtures("small_blocks")
def test_an_error_names_file_column_and_row_in_whatever_row_group_it_is(tmp_path: Path) -> None:
    write_awkward(tmp_path, text_users=False)
    path = tmp_path / "events-1.parquet"
    frame = pl.read_parquet(path)
    bad = frame.with_columns(pl.when(pl.int_range(pl.len()).is_in([41, 60])).then(None).otherwise(pl.col("at")).alias("at"))
    bad.write_parquet(path, row_group_size=17)
    with pytest.raises(DataError, match=r"events-1.parquet row 42: column 'at' .*2 such rows"):
        open_project(awkward_config(tmp_path))


def test_the_log_is_forgotten_before_training_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_awkward(tmp_path, text_users=False)
    logs: list[weakref.ref[EventLog]] = []
    alive: list[bool] = []
    trained = backtest.train_prepared

    def opened() -> Project:
        project = open_project(awkward_config(tmp_path))
        logs.append(weakref.ref(project.log))
        return project

    def looking(run: PreparedRun, **options: Any) -> Any:
        gc.collect()
        alive.extend(log() is not None for log in logs)
        return trained(run, **options)

    monkeypatch.setattr(backtest, "train_prepared", looking)
    train_latest(opened(), tmp_path / "run", log_to=silent)
    assert alive == [False]


def test_a_run_in_a_folder_of_other_settings_leaves_everything_there_as_it_was(tmp_path: Path) -> None:
    write_awkward(tmp_path, text_users=False)
    project = open_project(awkward_config(tmp_path))
    run = prepare_run(project, project.log, tmp_path / "run")
    before = {path.name: path.read_bytes() for path in sorted((tmp_path / "run").rglob("*")) if path.is_file()}
    other = replace(project, config=awkward_config(tmp_path, ties="in_order"))
    with pytest.raises(Exception, match="other settings or other data"):
        prepare_run(other, project.log, tmp_path / "run")
    assert {path.name: path.read_bytes() for path in sorted((tmp_path / "run").rglob("*")) if path.is_file()} == before
    assert len(run.dataset.train.take(np.arange(3))) == 3  # its examples are still there


def test_preparation_that_fails_leaves_no_folder_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_awkward(tmp_path, text_users=False)
    project = open_project(awkward_config(tmp_path))

    def fail(*_: object) -> None:
        raise DataError("planted")

    monkeypatch.setattr("shortlist.run.run_facts", fail)
    with pytest.raises(DataError, match="planted"):
        train_run(project, project.log, tmp_path / "run", log_to=silent)
    assert not (tmp_path / "run").exists()
