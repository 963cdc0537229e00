"""A training window over another snapshot of its corpus: rows move, everything else stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from small_project import ITEMS, silent, small_config, small_dataset, write_tables

from shortlist.backtest import backtest
from shortlist.baselines.cooccurrence import CoOccurrence
from shortlist.baselines.popularity import Popularity
from shortlist.catalogue import Catalogue
from shortlist.dataset import Dataset
from shortlist.encode import encode_corpus
from shortlist.errors import DataError
from shortlist.features.arrays import flat_arrays
from shortlist.learned import LearnedRetriever
from shortlist.project import open_project
from shortlist.snapshot import over_snapshot
from shortlist.train import Trainer

GONE, NEW = ("i03", "i11", "i50"), ("a new one", "i035", "z")  # in front, in the middle, at the end


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return small_dataset(tmp_path_factory.mktemp("snapshot"))[0]


def newer(items: Catalogue) -> Catalogue:
    """Three items gone, three new ones that are like i00 but for their id."""
    like = items.frame.row(0, named=True)
    kept = items.frame.filter(~pl.col("item_id").is_in(GONE))
    added = pl.DataFrame([{**like, "item_id": name} for name in NEW], schema=items.frame.schema)
    return Catalogue(pl.concat([kept, added]).sort("item_id"), "item_id", "newer")


def test_the_same_snapshot_changes_nothing(dataset: Dataset) -> None:
    same = over_snapshot(dataset, dataset.items)
    assert same.item_counts.tolist() == dataset.item_counts.tolist()
    assert same.train.item_row.tolist() == dataset.train.item_row.tolist()
    assert same.train.queries.history_items.tolist() == dataset.train.queries.history_items.tolist()
    assert same.train.queries.seed_row.tolist() == dataset.train.queries.seed_row.tolist()
    for name, array in flat_arrays(dataset.item_features).items():
        assert flat_arrays(same.item_features)[name].tobytes() == array.tobytes()


def test_rows_name_the_same_items_and_gone_items_are_none(dataset: Dataset) -> None:
    moved = over_snapshot(dataset, newer(dataset.items))
    old_id, new_id = dataset.items.ids.to_list(), moved.items.ids.to_list()
    kept = [row for row, item in enumerate(dataset.train.item_row) if old_id[item] not in GONE]
    assert [new_id[item] for item in moved.train.item_row] == [old_id[dataset.train.item_row[row]] for row in kept]
    assert moved.train.asker.tolist() == dataset.train.asker[kept].tolist()
    before, after = dataset.train.queries.take(np.array(kept)), moved.train.queries
    now = {row: -1 if item in GONE else new_id.index(item) for row, item in enumerate(old_id)} | {-1: -1}
    assert after.seed_row.tolist() == [now[row] for row in before.seed_row.tolist()]
    for query in range(0, len(after), 7):
        assert after.history(query).tolist() == [now[row] for row in before.history(query).tolist()]
    by_id = dict(zip(old_id, dataset.item_counts.tolist(), strict=True))
    assert dict(zip(new_id, moved.item_counts.tolist(), strict=True)) == {item: by_id.get(item, 0) for item in new_id}


def test_baselines_give_kept_items_the_scores_that_they_had(dataset: Dataset) -> None:
    moved = over_snapshot(dataset, newer(dataset.items))
    old_id, new_id = dataset.items.ids.to_list(), moved.items.ids.to_list()
    for make in (Popularity, lambda data: CoOccurrence(data, seeds_ask=False)):
        rows, scores = make(dataset).retrieve(dataset.train.queries.take(np.arange(1)), ITEMS)  # a query without a history
        old = {old_id[row]: score for row, score in zip(rows[0], scores[0], strict=True)}
        rows, scores = make(moved).retrieve(moved.train.queries.take(np.arange(1)), ITEMS)
        new = {new_id[row]: score for row, score in zip(rows[0], scores[0], strict=True)}
        assert new == {**{item: score for item, score in old.items() if item not in GONE}, **dict.fromkeys(NEW, 0.0)}


def test_a_model_gives_kept_items_their_vectors_and_new_ones_those_of_their_content(dataset: Dataset, tmp_path: Path) -> None:
    data, config = small_dataset(tmp_path)
    trainer = Trainer(data, data.train, config)
    for step in range(8):
        trainer.learner.learn(trainer.maker.make(step))
    model, tables = trainer.learner.model, trainer.learner.tables.weights
    before = encode_corpus(model, tables, data.item_features, codes=data.item_codes)
    moved = over_snapshot(data, newer(data.items))
    after = LearnedRetriever(model, tables, moved).corpus
    kept = [row for row, item in enumerate(data.items.ids) if item not in GONE]
    np.testing.assert_allclose(after.vector[moved.items.rows_of(data.items.ids[kept])], before.vector[kept], rtol=0, atol=1e-6)
    new = after.embedding[moved.items.rows_of(pl.Series(NEW))]
    assert np.isfinite(new).all() and np.abs(new).sum(axis=1).min() > 0
    rows, _ = LearnedRetriever(model, tables, moved).retrieve(moved.train.queries.take(np.arange(5)), len(moved.items))
    assert (np.sort(rows, axis=1) == np.arange(len(moved.items))).all()  # every newer item can be retrieved, and nothing else


def test_ids_of_another_type_are_refused(dataset: Dataset) -> None:
    with pytest.raises(DataError, match="convert it"):
        over_snapshot(dataset, Catalogue(pl.DataFrame({"item_id": [1, 2]}), "item_id", "numbers"))


def test_a_release_is_evaluated_from_end_to_end(tmp_path: Path) -> None:
    write_tables(tmp_path)
    events, items = (pl.read_parquet(tmp_path / f"{name}.parquet") for name in ("events", "items"))
    newer(Catalogue(items, "item_id", "items")).frame.write_parquet(tmp_path / "next_items.parquet")
    asked = pl.DataFrame({"user_id": list(range(0, 60, 5)), "item_id": (["i00", NEW[0]] * 6)}, schema_overrides={"user_id": pl.Int64})
    added = events[-12:].drop("user_id", "item_id").with_columns(at=pl.col("at").max() + 86_400, stars=1.0).hstack(asked)
    pl.concat([events, added.select(events.columns)]).write_parquet(tmp_path / "next_events.parquet")
    snapshots = {f"next_{name}": str(tmp_path / f"next_{name}.parquet") for name in ("events", "items")}
    evaluate = {"protocol": "release", **snapshots, "ks": [5, 20], "bootstrap": 20}
    project = open_project(small_config(tmp_path, {"evaluate": evaluate, "train": {"epochs": 2}}))
    table = backtest(project, tmp_path / "evaluation", log_to=silent)
    assert table["corpus_size"] == ITEMS and [split["name"] for split in table["splits"]] == ["next release"]
    known = set(events.select("user_id", "item_id").rows())
    expected = [pair for pair in asked.rows() if pair not in known]
    assert table["queries"] == len(expected) and table["splits"][0]["train_examples"] == len(events)
    parts = {name: part["queries"] for name, part in table["slices"].items()}
    assert (parts["unseen items: new since training"], parts["unseen items: never chosen"], parts["unseen items"]) == (6, 0, 6)
    assert parts["item never chosen before"] == 6  # what is new now was not in the older log either
    assert table["models"]["popularity"]["recall@20"]["mean"] < 0.6  # no new item can be hit by popularity
