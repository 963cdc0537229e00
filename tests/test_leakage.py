"""No split lets training see what is tested, and no query what comes at or after its own instant."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_project import ITEMS, USERS, small_project

from shortlist.baselines.fit import BASELINES, fit_baselines
from shortlist.dataset import Dataset, Examples, make_dataset
from shortlist.features.arrays import flat_arrays
from shortlist.files import Places
from shortlist.log import EventLog
from shortlist.project import Project
from shortlist.protocols.holdout import holdout_split
from shortlist.protocols.rolling import rolling_days, rolling_split
from shortlist.protocols.split import Split
from shortlist.sections import Config, HoldoutUnit

WINDOW = {"evaluate": {"protocol": "rolling", "train_days": 6, "test_days": 2, "shifts": 1}}
SPLITS: dict[str, Callable[[EventLog, Project], Split]] = {
    "rolling": lambda log, project: rolling_split(log, rolling_days(project.log, project.config)[0], 6, 2),
    "active": lambda log, project: rolling_split(log, rolling_days(project.log, project.config)[0], 6, 2, days="active"),
    "rows": lambda log, project: holdout_split(log, "rows", 0.2, seed=3),
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return small_project(tmp_path_factory.mktemp("leakage"), WINDOW)


def files_of(dataset: Dataset, config: Config, more_baselines: Sequence[str] = ()) -> dict[str, bytes]:
    """Everything that a training window is made into, as bytes: vocabularies, statistics, features, examples, popularity."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        dataset.item_encoder.save(folder, "items")
        dataset.query_encoder.save(folder)
        dataset.train.save(folder / "train")
        found = {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for side, features in (("item", dataset.item_features), ("user", dataset.user_features)):
        found |= {f"{side} {name}": array.tobytes() for name, array in flat_arrays(features).items()}
    queries = dataset.train.queries.take(np.arange(13))
    names = ("popularity", "co-occurrence", *more_baselines)
    for baseline in fit_baselines(dataset, config, names)[0]:
        rows, scores = baseline.retrieve(queries, 17)
        found[baseline.name] = rows.tobytes() + scores.tobytes()
    return {**found, "counts": dataset.item_counts.tobytes()}


def other_events(log: EventLog, rows: np.ndarray, seed: int, keep: tuple[str, ...] = ()) -> EventLog:
    """The log with everything that is asked and chosen in `rows` drawn anew, but the columns to `keep`."""
    rng = np.random.default_rng(seed)
    count = len(rows)
    drawn = {
        "user": rng.integers(0, USERS, count),
        "item": [f"i{row:02d}" for row in rng.integers(0, ITEMS, count)],
        "weight": rng.choice([0.0, 0.5, 7.0], count).astype(np.float32),
        "weekday": [f"day {value}" for value in rng.integers(0, 99, count)],  # most of them unheard of
    }
    frame = log.frame
    for name, values in drawn.items():
        if name not in keep:
            frame = frame.with_columns(frame[name].clone().scatter(rows, pl.Series(values, dtype=frame[name].dtype)))
    return replace(log, frame=frame, places=Places(("e",), (0,)))


def histories(examples: Examples) -> list[list[int]]:
    return [examples.queries.history(query).tolist() for query in range(len(examples))]


# --- training does not see what is tested


@pytest.mark.parametrize("kind", SPLITS)
@given(seed=st.integers(0, 10_000))
@settings(max_examples=6, deadline=None)
def test_nothing_of_the_training_dataset_changes_with_what_is_tested(project: Project, kind: str, seed: int) -> None:
    split = SPLITS[kind](project.log, project)
    changed = SPLITS[kind](other_events(split.log, np.flatnonzero(split.test), seed), project)
    assert changed.test.tolist() == split.test.tolist()  # still the same rows
    expected = files_of(make_dataset(project, split.train_log), project.config)
    assert files_of(make_dataset(project, changed.train_log), project.config) == expected


def test_no_baseline_is_tuned_or_fitted_on_what_is_tested(project: Project) -> None:
    others = [name for name in BASELINES if name not in ("popularity", "co-occurrence")]
    split = SPLITS["rolling"](project.log, project)
    changed = SPLITS["rolling"](other_events(split.log, np.flatnonzero(split.test), 7), project)
    first, second = (files_of(make_dataset(project, part.train_log), project.config, others) for part in (split, changed))
    assert second == first and set(BASELINES) <= set(first)


@pytest.mark.parametrize(("unit", "keep"), [("users", ("user",)), ("items", ("item",)), ("pairs", ("user", "item"))])
def test_nothing_of_held_out_users_items_and_pairs_is_learned(project: Project, unit: HoldoutUnit, keep: tuple[str, ...]) -> None:
    split = holdout_split(project.log, unit, 0.2, seed=3)
    changed = holdout_split(other_events(project.log, np.flatnonzero(split.test), 5, keep), unit, 0.2, seed=3)
    assert changed.test.tolist() == split.test.tolist()
    dataset = make_dataset(project, split.train_log)
    assert files_of(make_dataset(project, changed.train_log), project.config) == files_of(dataset, project.config)
    if unit == "items":
        tested = dataset.encode_split(split, project.config)
        assert not dataset.item_counts[tested.item_row].any()  # none of them is a positive in training


def test_events_that_are_added_behind_the_window_change_nothing(project: Project) -> None:
    split = SPLITS["rolling"](project.log, project)
    times = split.log.frame["time"]
    planted = pl.concat([split.log.frame, split.log.frame[-97:].with_columns(time=pl.lit(int(times.max())))])  # type: ignore[arg-type]
    longer = SPLITS["rolling"](replace(project.log, frame=planted, places=Places(("e",), (0,))), project)
    assert len(longer.log) == len(split.log) + 97
    assert files_of(make_dataset(project, longer.train_log), project.config) == files_of(
        make_dataset(project, split.train_log), project.config
    )


def test_the_check_would_see_a_leak(project: Project) -> None:
    split = SPLITS["rolling"](project.log, project)
    changed = SPLITS["rolling"](other_events(split.log, np.flatnonzero(split.test), 1), project)
    everything = [make_dataset(project, part.log) for part in (split, changed)]  # test events learned from
    leaking, changed_files = (files_of(dataset, project.config) for dataset in everything)
    differing = {name for name in leaking if leaking[name] != changed_files.get(name)}
    assert {"counts", "popularity", "co-occurrence"} <= differing


# --- a query does not see its own instant, nor what comes after


@given(seed=st.integers(0, 10_000))
@settings(max_examples=12, deadline=None)
def test_a_query_is_the_same_whatever_happens_at_or_after_its_instant(project: Project, seed: int) -> None:
    split = SPLITS["rolling"](project.log, project)
    dataset = make_dataset(project, split.train_log)
    asked = int(np.random.default_rng(seed).choice(np.flatnonzero(split.test)))
    time = split.log.frame["time"].to_numpy()
    later = np.setdiff1d(np.flatnonzero(time >= time[asked]), asked)
    changed = replace(split, log=other_events(split.log, later, seed))
    place = int(split.test[:asked].sum())
    before, after = (dataset.encode_split(part, project.config).take(np.array([place])) for part in (split, changed))
    assert histories(before) == histories(after)
    assert before.queries.seed_row.tolist() == after.queries.seed_row.tolist()
    old, new = ({name: array.tolist() for name, array in flat_arrays(part.queries.context).items()} for part in (before, after))
    assert old == new and old


@pytest.mark.parametrize("ties", ["hidden", "in_order"])
@given(seed=st.integers(0, 10_000), instants=st.integers(1, 23))
@settings(max_examples=15, deadline=None)
def test_a_history_is_what_the_user_chose_strictly_before(project: Project, ties: str, seed: int, instants: int) -> None:
    rng = np.random.default_rng(seed)
    frame = project.log.frame[:131]
    times = np.sort(rng.integers(0, instants, 131))
    frame = frame.with_columns(time=pl.Series(times), user=pl.Series(rng.integers(0, 5, 131)))
    log = replace(project.log, frame=frame, places=Places(("e",), (0,)))
    test = rng.random(131) < 0.4
    remembered = rng.random(131) < 0.7
    config = with_ties(project, ties)
    dataset = make_dataset(project, log)
    found = histories(dataset.encode_split(Split("s", log, test, remembered), config))
    user, items = frame["user"].to_list(), dataset.items.rows_of(frame["item"]).tolist()
    expected = []
    for row in np.flatnonzero(test):  # reads the rule aloud
        is_past = [times[other] < times[row] or (ties == "in_order" and times[other] == times[row] and other < row) for other in range(131)]
        expected.append([items[other] for other in range(131) if user[other] == user[row] and remembered[other] and is_past[other]])
    assert found == expected


def with_ties(project: Project, ties: str) -> Config:
    columns = msgspec.structs.replace(project.config.columns, ties=ties)
    return msgspec.structs.replace(project.config, columns=columns)
