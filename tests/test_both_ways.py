"""A log read backwards: histories and seeds by hand, sessions cut where they end, and nothing of the forward examples changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_project import SilentLog, small_dataset, small_project

from shortlist.both_ways import both_ways, examples_to_learn
from shortlist.config import for_log
from shortlist.dataset import Examples
from shortlist.features.arrays import Ids
from shortlist.histories import derived_histories
from shortlist.queries import Queries
from shortlist.run import train_run

SECOND = 1_000_000


def examples_of(users: list[int], times: list[int], items: list[int], *, in_order: bool = False) -> Examples:
    """Examples of a log in order of time, histories derived, the newest of each as seed; the context says which event it is."""
    count = len(users)
    time = np.array(times, np.int64) * SECOND
    who = pl.Series("user", [None if user < 0 else user for user in users], dtype=pl.Int64)
    item_row = np.array(items, np.int32)
    history, start, end = derived_histories(who, pl.Series(time), item_row, in_order=in_order)
    context = {"event": Ids(np.arange(count, dtype=np.int32))}
    blank = np.full(count, -1, np.int32)
    queries = Queries(blank, np.array(users, np.int32), history, start, end, context).looking_at_newest(np.ones(count, bool))
    return Examples(queries, item_row, np.arange(1, count + 1, dtype=np.float32), time, np.array(users, np.int64))


def told(examples: Examples) -> list[tuple[int, int, list[int], int]]:
    """(event, seed, history with the nearest last, item) of each example."""
    events = examples.queries.context["event"]
    assert isinstance(events, Ids)
    return [
        (int(events.values[n]), int(examples.queries.seed_row[n]), examples.queries.history(n).tolist(), int(examples.item_row[n]))
        for n in range(len(examples))
    ]


def test_a_session_by_hand() -> None:
    #        user 7 chooses 10, 20, (a minute later) 30; user 8 chooses 40, and 50 two hours later
    forward = examples_of([7, 7, 8, 7, 8], [0, 5, 6, 65, 7206], [10, 20, 40, 30, 50])
    both = both_ways(forward, within_seconds=1800, in_order=False)
    assert told(both)[:5] == told(forward)
    assert told(both)[5:] == [(1, 30, [30], 20), (0, 20, [30, 20], 10)]  # newest first; 40 has no follower within half an hour
    np.testing.assert_array_equal(both.weight[5:], [2, 1])
    np.testing.assert_array_equal(both.time[5:], forward.time[[1, 0]])
    np.testing.assert_array_equal(both.asker[5:], [7, 7])


def test_events_of_one_instant_do_not_see_each_other() -> None:
    forward = examples_of([1, 1, 1], [0, 0, 9], [10, 20, 30])
    assert told(both_ways(forward, within_seconds=60, in_order=False))[3:] == [(1, 30, [30], 20), (0, 30, [30], 10)]


def test_in_an_ordered_log_they_follow_each_other() -> None:
    forward = examples_of([1, 1, 1], [0, 0, 9], [10, 20, 30], in_order=True)
    assert told(both_ways(forward, within_seconds=1, in_order=True))[3:] == [(0, 20, [30, 20], 10)]


def test_nobody_has_no_session() -> None:
    forward = examples_of([-1, -1, 3], [0, 1, 2], [10, 20, 30])
    assert told(both_ways(forward, within_seconds=60, in_order=False)) == told(forward)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9), st.integers(0, 6)), max_size=23), st.integers(1, 5), st.booleans())
def test_a_slow_oracle_agrees(rows: list[tuple[int, int, int]], within: int, in_order: bool) -> None:
    rows = sorted(rows, key=lambda row: row[1])
    users, times, items = ([row[part] for row in rows] for part in range(3))
    expected = []
    for event in reversed(range(len(rows))):
        later = [
            other
            for other in range(len(rows))
            if users[other] == users[event] and (other > event if in_order else times[other] > times[event])
        ]
        if later and times[later[0]] - times[event] <= within:
            history = [items[other] for other in reversed(later)]
            expected.append((event, history[-1], history, items[event]))
    forward = examples_of(users, times, items, in_order=in_order)
    assert told(both_ways(forward, within_seconds=within, in_order=in_order))[len(rows) :] == expected


def test_small_logs_are_read_both_ways_and_large_ones_forward(tmp_path: Path) -> None:
    dataset, config = small_dataset(tmp_path, {"train": {"both_ways_within": None}})
    small, large = for_log(config, 30_000), for_log(config, 30_001)
    assert (small.train.both_ways_within, large.train.both_ways_within) == (1800.0, 0.0)
    assert examples_to_learn(dataset.train, large) is dataset.train
    learned = examples_to_learn(dataset.train, small)
    assert len(learned) > len(dataset.train)
    unresolved = msgspec.structs.replace(config.train, both_ways_within=None)
    with pytest.raises(ValueError, match="both_ways_within must be resolved"):
        examples_to_learn(dataset.train, msgspec.structs.replace(config, train=unresolved))


def test_a_run_resolves_the_setting_keeps_it_and_learns_from_both_ways(tmp_path: Path) -> None:
    logs: list[SilentLog] = []

    @contextmanager
    def kept(path: Path, title: str = "") -> Iterator[SilentLog]:
        logs.append(SilentLog())
        yield logs[-1]

    for within, resolved in ((None, 1800.0), (0.0, 0.0)):
        project = small_project(tmp_path, {"train": {"both_ways_within": within, "epochs": 1}})
        run = train_run(project, project.log, tmp_path / f"run-{resolved:g}", log_to=kept)
        assert run.config.train.both_ways_within == resolved
    assert logs[0].steps > logs[1].steps
