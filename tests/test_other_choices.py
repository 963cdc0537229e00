"""Histories of logs without times: what else whoever asks chose, by hand and against a slow oracle, and from training to an answer."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from serve_settings import quiet_settings
from small_project import silent, write_tables

from shortlist.bundle import open_current
from shortlist.config import config_from_tree
from shortlist.export import publish_run
from shortlist.histories import other_choices
from shortlist.project import open_project
from shortlist.recommender import recommend
from shortlist.run import train_run
from shortlist.serve.messages import RecommendRequest
from shortlist.serve.service import Service
from shortlist.user_order import user_order

CORPUS = 13


def seen(askers: list[int | None], items: list[int], remembered: list[bool] | None = None) -> list[list[int]]:
    """The history of each event, rising."""
    known = None if remembered is None else np.array(remembered, bool)
    order = user_order(pl.Series(askers, dtype=pl.Int64))
    flat, start, end = other_choices(order, np.array(items, np.int32), CORPUS, remembered=known)
    return [sorted(flat[first:last].tolist()) for first, last in zip(start, end, strict=True)]


def test_each_event_sees_the_others_of_its_asker() -> None:
    assert seen([7, 8, 7, 7, None], [1, 2, 3, 5, 6]) == [[3, 5], [], [1, 5], [1, 3], []]


def test_an_item_chosen_twice_is_hidden_from_both_events_and_seen_once_by_others() -> None:
    assert seen([7, 7, 7], [1, 1, 3]) == [[3], [3], [1]]


def test_an_event_that_is_not_remembered_sees_all_others_and_is_seen_by_none() -> None:
    assert seen([7, 7, 7], [1, 2, 3], [True, False, True]) == [[3], [1, 3], [1]]


def test_a_held_out_event_whose_item_is_remembered_by_another_does_not_see_it() -> None:
    assert seen([7, 7, 7], [1, 1, 3], [True, False, True]) == [[3], [3], [1]]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([None, 0, 1, 2]), st.integers(0, CORPUS - 1), st.booleans()), max_size=29))
def test_a_slow_oracle_agrees(rows: list[tuple[int | None, int, bool]]) -> None:
    askers, items, remembered = ([row[part] for row in rows] for part in range(3))
    expected = [
        sorted({other for who, other, known in rows if known and who == asker and who is not None} - {item})
        for asker, item in zip(askers, items, strict=True)
    ]
    assert seen(askers, items, remembered) == expected


def test_a_log_of_seeds_that_ask_is_learned_published_and_answered_with_what_else_each_chose(tmp_path: Path) -> None:
    write_tables(tmp_path)
    random = np.random.default_rng(3)
    events = pl.DataFrame(
        {"looked_at": [f"i{n % 7:02d}" for n in range(601)], "item_id": [f"i{n:02d}" for n in random.integers(0, 41, 601)]}
    )
    events.write_parquet(tmp_path / "events.parquet")
    config = config_from_tree(
        {
            "data": {"events": str(tmp_path / "events.parquet"), "items": str(tmp_path / "items.parquet")},
            "columns": {"item": "item_id", "seed": "looked_at"},
            "item": {"features": {"item_id": "id", "title": {"kind": "text", "buckets": 61}}},
            "query": {"features": {"seed": "item", "history": {"kind": "items", "last": 60}}},
            "model": {"embedding_dim": 8, "hidden": [19, 11]},
            "negatives": {"batch_size": 64, "index_batch_size": 23},
            "train": {"epochs": 2, "matmul": "float32"},
        }
    )
    project = open_project(config)
    run = train_run(project, project.log, tmp_path / "run", log_to=silent)
    publish_run(run, tmp_path / "store")
    bundle = open_current(tmp_path / "store")
    others = sorted(set(events.filter(pl.col("looked_at") == "i03")["item_id"]))
    told = recommend(bundle, pl.DataFrame({"seed": ["i03"], "history": [others]}), 9)
    assert recommend(bundle, pl.DataFrame({"seed": ["i03"], "history": [["i01"]]}), 9)["scores"].to_list() != told["scores"].to_list()
    unseen = pl.DataFrame({"seed": ["i03"], "item": ["i52"]})  # an example of i03 whose item it did not choose sees the published set
    order = user_order(pl.concat([project.log.frame["seed"], unseen["seed"]]))
    rows = np.append(run.items.rows32_of(project.log.frame["item"]), run.items.rows32_of(unseen["item"]))
    flat, start, end = other_choices(order, rows, len(run.items), remembered=np.arange(602) < 601)
    assert bundle.histories is not None
    published = bundle.histories.filter(pl.col("seed") == "i03")["history"].to_list()[0]
    assert run.items.ids[flat[start[-1] : end[-1]]].to_list() == published  # in one order, or the newest of them would differ
    known = recommend(bundle, pl.DataFrame({"seed": ["i03"]}), 9)
    assert sorted(bundle.histories.filter(pl.col("seed") == "i03")["history"].to_list()[0]) == others
    in_order = bundle.histories.filter(pl.col("seed") == "i03")["history"].to_list()
    assert known["items"].to_list() == recommend(bundle, pl.DataFrame({"seed": ["i03"], "history": in_order}), 9)["items"].to_list()
    with closing(Service.open(tmp_path / "store", quiet_settings())) as service:
        assert list(service.recommend(RecommendRequest(seed="i03", k=9)).items) == known["items"].to_list()[0]
        assert service.recommend(RecommendRequest(seed="no such item", k=9)).items  # whoever is unknown has chosen nothing
