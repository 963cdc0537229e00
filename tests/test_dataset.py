"""Training examples: what a query may know of the past, who asks, and that nothing of the future leaks in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as property_settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import shortlist
from shortlist.catalogue import Catalogue
from shortlist.config import config_from_tree
from shortlist.dataset import Dataset, Examples, make_dataset, open_examples
from shortlist.errors import ConfigError
from shortlist.features.arrays import flat_arrays
from shortlist.files import Places
from shortlist.histories import derived_histories
from shortlist.log import EventLog
from shortlist.project import Project, open_project
from shortlist.protocols.holdout import holdout_split, leave_last_split
from shortlist.protocols.split import Split

STEADY = property_settings(deadline=None, derandomize=True)
IDS = "abcde"
ITEMS = Catalogue(pl.DataFrame({"item": list(IDS), "price": [1.0, 2.0, 3.0, 4.0, 50.0]}), "item", "items")
BOTH = {"seed": "item", "history": {"kind": "items", "last": 4}}


def log_of(**columns: Any) -> EventLog:
    frame = columns.pop("frame", None)
    frame = pl.DataFrame(columns) if frame is None else frame
    return EventLog(frame, Places(("e",), (0,)), "e", {name: name for name in frame.columns})


def project_of(log: EventLog, query: dict[str, Any], users: Catalogue | None = None, **columns: str) -> Project:
    """The project that these tables make, with plain item features; [columns] are the log's roles."""
    roles: dict[str, str] = {role: role for role in ("item", "user", "time", "seed", "history", "weight") if role in log.frame.columns}
    tree = {
        "data": {"events": "e"},
        "columns": {**roles, **columns},
        "item": {"features": {"item": "id", "price": "number"}},
        "query": {"features": query},
        "evaluate": {"protocol": "holdout"},
    }
    return Project(config_from_tree(tree), log, ITEMS, users, {}, {}, False)


def dataset_of(log: EventLog, query: dict[str, Any], users: Catalogue | None = None, **columns: str) -> Dataset:
    return make_dataset(project_of(log, query, users, **columns), log)


def histories(examples: Examples) -> list[str]:
    """Each example's history as letters, oldest first."""
    return ["".join(IDS[row] for row in examples.queries.history(query)) for query in range(len(examples))]


def seeds(examples: Examples) -> str:
    return "".join("-" if row < 0 else IDS[row] for row in examples.queries.seed_row)


# --- the past


def slow_histories(users: list[int | None], time: list[int], items: list[int], in_order: bool, kept: list[bool]) -> list[list[int]]:
    """The definition: look at every other event of the log."""
    found = []
    for i, user in enumerate(users):
        before = [
            j
            for j in range(len(users))
            if user is not None and users[j] == user and (time[j] < time[i] or (in_order and time[j] == time[i] and j < i))
        ]
        found.append([items[j] for j in before if kept[j]])
    return found


@STEADY
@given(
    st.lists(st.tuples(st.none() | st.integers(-2, 3), st.integers(0, 6), st.integers(0, 96), st.booleans()), min_size=1, max_size=41),
    st.booleans(),
    st.booleans(),
)
def test_histories_agree_with_a_plain_loop(events: list[tuple[int | None, int, int, bool]], in_order: bool, all_kept: bool) -> None:
    events = sorted(events, key=lambda event: event[1])
    users, time, items, kept = ([event[part] for event in events] for part in range(4))
    if all_kept:
        kept = [True] * len(events)
    flat, start, end = derived_histories(
        pl.Series(users, dtype=pl.Int64),
        np.array(time),
        np.array(items, np.int32),
        in_order=in_order,
        remembered=None if all_kept else np.array(kept),
    )
    found = [flat[a:b].tolist() for a, b in zip(start, end, strict=True)]
    assert found == slow_histories(users, time, items, in_order, kept)  # type: ignore[arg-type]  # zip forgets the columns' types


def test_events_of_one_instant_are_hidden_from_each_other_unless_the_log_is_in_order() -> None:
    columns = {"user": [1, 1, 1, 1, 2], "item": list("abcda"), "time": [10, 20, 20, 30, 30]}
    assert histories(dataset_of(log_of(**columns), BOTH).train) == ["", "a", "a", "abc", ""]
    in_order = dataset_of(log_of(**columns), BOTH, ties="in_order").train
    assert (histories(in_order), seeds(in_order)) == (["", "a", "ab", "abc", ""], "-abc-")


def test_nobody_has_no_past() -> None:
    train = dataset_of(log_of(user=["u", None, "u", None], item=list("abcd"), time=[1, 2, 3, 4]), BOTH).train
    assert (histories(train), seeds(train)) == (["", "", "a", ""], "--a-")


def test_a_log_without_times_has_no_past_either() -> None:
    train = dataset_of(log_of(user=["u", "u"], item=list("ab")), {"user": "category"}).train
    assert (histories(train), seeds(train), train.time.tolist()) == (["", ""], "--", [0, 0])


def test_the_past_is_there_for_baselines_even_where_the_model_has_no_history() -> None:
    train = dataset_of(log_of(user=[1, 1], item=list("ab"), time=[1, 2]), {"seed": "item"}).train
    assert (histories(train), seeds(train)) == (["", "a"], "-a")


# --- seeds and histories that the log has


def test_a_seed_column_is_taken_and_its_nulls_are_filled_as_they_will_be_when_asked() -> None:
    log = log_of(user=[1, 1, 1, 1], item=list("abcd"), seed=[None, "e", None, "zzz"], time=[1, 2, 3, 4])
    dataset = dataset_of(log, BOTH)
    assert seeds(dataset.train) == "-eb-"  # row 3: b was chosen before; row 4: an unknown seed is none, not the history
    asked = pl.DataFrame({"user": [1], "seed": pl.Series([None], dtype=pl.String), "history": [["a", "b"]]})
    assert dataset.query_encoder.encode(asked, ITEMS, None).seed_row.tolist() == [1]


def test_a_history_column_is_taken_instead_of_the_log_and_gives_the_seed_too() -> None:
    log = log_of(user=[1, 1, 1], item=list("abc"), history=[["e", "d"], None, ["zzz"]], time=[1, 2, 3])
    train = dataset_of(log, BOTH).train
    assert (histories(train), seeds(train)) == (["ed", "", ""], "d--")


@STEADY
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5), st.sampled_from(IDS)), min_size=1, max_size=23))
def test_a_derived_query_equals_the_one_asked_with_its_history(events: list[tuple[int, int, str]]) -> None:
    """Training and serving see one query: what the log implies, and what a caller spells out."""
    events = sorted(events, key=lambda event: event[1])
    dataset = dataset_of(log_of(user=[e[0] for e in events], item=[e[2] for e in events], time=[e[1] for e in events]), BOTH)
    asked = pl.DataFrame({"history": [list(line) for line in histories(dataset.train)]}, schema={"history": pl.List(pl.String)})
    queries = dataset.query_encoder.encode(asked, ITEMS, None)
    assert queries.seed_row.tolist() == dataset.train.queries.seed_row.tolist()
    assert queries.newest_first(5).tolist() == dataset.train.queries.newest_first(5).tolist()


# --- leakage


def query_parts(examples: Examples, row: int) -> tuple[object, ...]:
    queries = examples.queries
    context = [array.tobytes() for array in flat_arrays({n: c.take(np.array([row])) for n, c in queries.context.items()}).values()]
    return int(queries.seed_row[row]), int(queries.user_row[row]), queries.history(row).tolist(), context


@STEADY
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 6), st.sampled_from(IDS)), min_size=2, max_size=19),
    st.lists(st.tuples(st.integers(0, 2), st.sampled_from(IDS)), min_size=19, max_size=19),
    st.data(),
)
def test_changing_events_at_or_after_an_instant_changes_no_query_of_that_instant(
    events: list[tuple[int, int, str]], others: list[tuple[int, str]], data: st.DataObject
) -> None:
    events = sorted(events, key=lambda event: event[1])
    row = data.draw(st.integers(0, len(events) - 1))
    instant = events[row][1]
    changed = [
        event if event[1] < instant or place == row else (other[0], event[1], other[1])
        for place, (event, other) in enumerate(zip(events, others, strict=False))
    ]
    changed[row] = (events[row][0], instant, others[row][1])  # its own answer changes too
    assert len(changed) == len(events)

    def encoded(log: list[tuple[int, int, str]]) -> Examples:
        frame = pl.DataFrame({"user": [e[0] for e in log], "item": [e[2] for e in log], "time": [e[1] for e in log]})
        project = project_of(log_of(frame=frame), BOTH)
        everything = Split("s", project.log, np.ones(len(log), bool), np.ones(len(log), bool))
        return make_dataset(project, project.log).encode_split(everything, project.config)

    assert query_parts(encoded(events), row) == query_parts(encoded(changed), row)


def test_what_is_held_out_is_in_no_history_of_either_side() -> None:
    rng = np.random.default_rng(3)
    count = 211
    items = rng.integers(0, 5, count)
    log = log_of(user=rng.integers(0, 7, count), item=[IDS[item] for item in items], time=np.arange(count) // 3)
    project = project_of(log, BOTH)
    for unit in ("rows", "pairs"):
        split = holdout_split(log, unit, 0.3, seed=1)
        dataset = make_dataset(project, split.train_log)
        users, times, kept = log.frame["user"].to_list(), log.frame["time"].to_list(), (~split.test).tolist()
        expected = slow_histories(users, times, items.tolist(), False, kept)
        tested = dataset.encode_split(split, project.config)
        assert [tested.queries.history(i).tolist() for i in range(len(tested))] == [expected[row] for row in np.flatnonzero(split.test)]
        learned = dataset.train
        assert [learned.queries.history(i).tolist() for i in range(len(learned))] == [expected[row] for row in np.flatnonzero(~split.test)]


def test_a_tested_query_knows_the_events_before_it_also_those_of_the_test_days() -> None:
    log = log_of(user=[1, 1, 1, 2], item=list("abcd"), time=[1, 2, 3, 4])
    split = Split("s", log, np.array([False, True, True, True]), np.ones(4, bool))
    project = project_of(log, BOTH)
    tested = make_dataset(project, split.train_log).encode_split(split, project.config)
    assert (histories(tested), seeds(tested), tested.item_row.tolist()) == (["a", "ab", ""], "ab-", [1, 2, 3])


def test_the_last_event_of_a_user_sees_all_of_their_others() -> None:
    log = log_of(user=[1, 2, 1, 2, 3, 1], item=list("abcdea"), time=[1, 2, 3, 4, 5, 6])
    split = leave_last_split(log)
    project = project_of(log, BOTH)
    tested = make_dataset(project, split.train_log).encode_split(split, project.config)
    assert (histories(tested), tested.item_row.tolist()) == (["b", "ac"], [3, 0])


def test_vocabularies_statistics_and_counts_come_from_the_window_alone() -> None:
    events = pl.DataFrame({"user": [1, 1, 2], "item": list("aba"), "time": [1, 2, 3], "day": ["mon", "tue", "mon"]})
    later = pl.DataFrame({"user": [3], "item": ["e"], "time": [9], "day": ["sun"]})
    query = {**BOTH, "day": "category"}
    window, longer = log_of(frame=events), log_of(frame=pl.concat([events, later]))
    project = project_of(longer, query)
    split = Split("s", longer, np.array([False, False, False, True]), np.ones(4, bool))
    found, expected = make_dataset(project, split.train_log), dataset_of(window, query)
    assert found.item_counts.tolist() == expected.item_counts.tolist() == [2, 1, 0, 0, 0]
    assert found.item_encoder.embedded == {"item": (1 + 1 + 2, None)}  # a and b have ids of their own
    for name, array in flat_arrays(expected.item_features).items():
        assert flat_arrays(found.item_features)[name].tobytes() == array.tobytes()
    price = found.item_features["price"].values[:, 0]
    assert price.tolist() == [-1, 1, 3, 5, 97]  # mean 1.5, deviation .5 of the seen 1 and 2: the 50 of e is not in them
    tested = found.encode_split(split, project.config)
    assert tested.queries.context["day"].values.tolist() == [1]  # sun is unknown


# --- examples as arrays


def test_an_item_that_is_looked_at_shapes_the_content_but_has_no_id() -> None:
    dataset = dataset_of(log_of(seed=["c", "c", "zzz"], item=list("aba")), {"seed": "item"})
    assert dataset.item_features["item"].values.tolist() == [2, 3, 1, 1, 1]
    # seen are a, b and c with prices 1, 2, 3: mean 2, deviation sqrt(2 / 3) = .8165; d is 2 / .8165 = 2.4495 above
    assert dataset.item_features["price"].values[3, 0] == pytest.approx(2.4495, abs=1e-4)


def test_weights_times_and_positives_follow_the_log() -> None:
    weight = pl.Series([0.5, 2.0, 0.0], dtype=pl.Float32)
    train = dataset_of(log_of(user=[1, 2, 1], item=list("eba"), time=[5, 6, 7], weight=weight), BOTH).train
    assert (train.weight.tolist(), train.time.tolist(), train.item_row.tolist()) == ([0.5, 2.0, 0.0], [5, 6, 7], [4, 1, 0])
    assert dataset_of(log_of(seed=["a"], item=["b"]), {"seed": "item"}).train.weight.tolist() == [1.0]


def test_counts_are_of_positives_and_every_item_has_one() -> None:
    dataset = dataset_of(log_of(user=[1, 1, 2, 3], item=list("bebb"), time=[1, 2, 3, 4]), BOTH)
    assert dataset.item_counts.tolist() == [0, 3, 0, 0, 1]
    assert len(dataset.item_features["item"]) == 5


def test_users_have_features_and_unknown_ones_take_the_entry_of_nobody() -> None:
    users = Catalogue(pl.DataFrame({"user": [1, 2, 3], "age": ["x", "y", "z"]}), "user", "users")
    dataset = dataset_of(log_of(user=[2, 9, None, 1], item=list("abca"), time=[1, 2, 3, 4]), {**BOTH, "users.age": "category"}, users)
    assert dataset.train.queries.user_row.tolist() == [1, -1, -1, 0]
    assert dataset.user_features["users.age"].values.tolist() == [2, 3, 1, 0]  # user 3 is not of the window: unknown; then nobody


@pytest.mark.parametrize(
    "ids", [[5, 7, 5, None], [-5, -7, -5, None], ["u", "v", "u", None], [2**63 - 1, -(2**63), 2**63 - 1, None], [-1, 0, -1, None]]
)
def test_askers_are_numbers_from_zero_equal_for_equal_users_and_minus_one_for_nobody(ids: list[object]) -> None:
    train = dataset_of(log_of(user=ids, item=list("abca"), time=[1, 2, 3, 4]), BOTH).train
    first, second, again, nobody = train.asker.tolist()
    assert first == again != second and min(first, second) >= 0 and nobody == -1


def test_the_seed_asks_where_there_is_no_user_and_nobody_where_neither_is() -> None:
    askers = dataset_of(log_of(seed=["c", "d", "c"], item=list("aba")), {"seed": "item"}).train.asker
    assert askers[0] == askers[2] != askers[1]
    assert dataset_of(log_of(item=list("ab"), day=["x", "y"]), {"day": "category"}).train.asker.tolist() == [-1, -1]


def test_askers_have_the_same_numbers_in_the_train_and_the_test_log_and_in_every_process() -> None:
    log = log_of(user=[f"u{number % 5}" for number in range(30)], item=list("abcde") * 6, time=list(range(30)))
    split = Split("s", log, np.arange(30) >= 20, np.ones(30, bool))
    project = project_of(log, BOTH)
    dataset = make_dataset(project, split.train_log)
    assert dataset.encode_split(split, project.config).asker.tolist() == dataset.train.asker[:10].tolist()
    program = (
        "import polars as pl; from shortlist.dataset import _askers;"
        "print(_askers(pl.DataFrame({'user': ['u0', 'u1', 'u2', 'u3', 'u4']})).tolist())"
    )
    path = str(Path(shortlist.__file__).parents[1])
    environment = {**os.environ, "PYTHONHASHSEED": "3", "PYTHONPATH": path}
    answer = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True).stdout
    assert answer == f"{dataset.train.asker[:5].tolist()}\n"


def parts(examples: Examples) -> dict[str, NDArray[Any]]:
    return dict(examples.arrays())


@pytest.mark.parametrize("has_time", [True, False])
def test_saved_examples_are_the_same_memory_mapped(tmp_path: Path, has_time: bool) -> None:
    context = {
        "zone/α.b": ["x", None, "y", "x"],
        "hour": [1, 2, None, 4],
        "a words#": ["red fish", None, "", "don't"],
        "tags": [["p"], [], None, ["q", "p"]],
    }
    columns = {"user": [1, 2, 1, 2], "item": list("abcd"), **({"time": [1, 2, 3, 4]} if has_time else {}), **context}
    kinds = dict(zip(context, ("category", "number", "text", "categories"), strict=True))
    query = {**(BOTH if has_time else {}), **{name: {"kind": kind, "column": f"events.{name}"} for name, kind in kinds.items()}}
    train = dataset_of(log_of(**columns), query).train
    train.save(tmp_path / "examples")
    train.save(tmp_path / "examples")  # a run that is taken up again writes them again
    opened = open_examples(tmp_path / "examples")
    assert list(opened.queries.context) == list(train.queries.context) == list(context)  # a model joins its features in this order
    assert isinstance(opened.item_row, np.memmap)
    rows = np.array([3, 0, 0, 2])
    for one, other in ((train, opened), (train.take(rows), opened.take(rows))):
        assert list(parts(one)) == list(parts(other))
        for name, array in parts(one).items():
            assert array.dtype == parts(other)[name].dtype and np.array_equal(array, parts(other)[name])


def test_taken_examples_keep_query_answer_weight_time_and_asker_together() -> None:
    log = log_of(user=[1, 2, 1, 2, 1], item=list("abcde"), time=[1, 2, 3, 4, 5], weight=pl.Series([1, 2, 3, 4, 5], dtype=pl.Float32))
    train = dataset_of(log, BOTH).train
    taken = train.take(np.array([4, 1, 3]))
    assert (histories(taken), taken.item_row.tolist(), taken.weight.tolist()) == (["ac", "", "b"], [4, 1, 3], [5, 2, 4])
    assert (taken.time.tolist(), taken.asker.tolist()) == ([5, 2, 4], train.asker[[4, 1, 3]].tolist())


# --- features that a query cannot have


@pytest.mark.parametrize(
    ("kind", "column", "role"), [("item", "shown", "seed"), ("items", "cart", "history"), ("item", "users.favourite", "seed")]
)
def test_an_item_feature_that_is_not_the_seed_or_the_history_is_refused(kind: str, column: str, role: str) -> None:
    users = Catalogue(pl.DataFrame({"user": [1], "favourite": ["a"]}), "user", "users")
    log = log_of(user=[1], item=["a"], time=[1], shown=["b"], cart=[["b"]])
    with pytest.raises(
        ConfigError, match=rf"query\.features\.{column} of kind '{kind}' must be the query's {role}: got column .*; set \[columns\]"
    ):
        dataset_of(log, {column: kind}, users)


def test_a_second_seed_or_history_is_refused() -> None:
    log = log_of(user=[1], item=["a"], time=[1])
    with pytest.raises(ConfigError, match="a query must have one feature of kind 'items': got 'longer' as a second; take one out"):
        dataset_of(log, {"history": "items", "longer": {"kind": "items", "column": "history", "last": 9}})


def test_a_seed_under_another_name_is_still_the_seed(tmp_path: Path) -> None:
    events = pl.DataFrame({"look": ["a", "b"], "item": ["b", "c"]})
    events.write_parquet(tmp_path / "events.parquet")
    tree = {
        "data": {"events": str(tmp_path / "events.parquet")},
        "columns": {"item": "item", "seed": "look"},
        "query": {"features": {"look": "item"}},
        "evaluate": {"protocol": "holdout"},
    }
    project = open_project(config_from_tree(tree))
    assert make_dataset(project, project.log).train.queries.seed_row.tolist() == [-1, 0]  # the corpus is b and c
