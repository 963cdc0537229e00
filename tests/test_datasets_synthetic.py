"""The made-up shop follows the rules it states, and is the same bytes from the same numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from small_fetch import quiet, said

from shortlist import parquet_blocks
from shortlist.config import load_config
from shortlist.datasets import synthetic
from shortlist.datasets.fetch import fetch_project
from shortlist.datasets.synthetic import DAY_MS, DAYS, GROUPS, START_MS, event_blocks, item_blocks, make_shop, popularity
from shortlist.errors import FetchError
from shortlist.project import open_project

EVENTS, ITEMS = 60_000, 1009


@pytest.fixture(scope="module")
def events() -> pl.DataFrame:
    return pl.concat(event_blocks(make_shop(EVENTS, ITEMS, 3), EVENTS, 3))


@pytest.fixture(scope="module")
def items() -> pl.DataFrame:
    return pl.concat(item_blocks(make_shop(EVENTS, ITEMS, 3), 3))


def within(found: float, expected: float, count: int) -> bool:
    """Is a share found among `count` draws within four standard deviations of the expected one?"""
    return abs(found - expected) < 4 * (expected * (1 - expected) / count) ** 0.5


def test_there_are_as_many_rows_as_asked_for_and_they_come_by_time(events: pl.DataFrame, items: pl.DataFrame) -> None:
    assert (events.height, items.height) == (EVENTS, ITEMS)
    at = events["timestamp"].cast(pl.Int64)
    assert at.is_sorted() and at[0] >= START_MS and at[-1] < START_MS + DAYS * DAY_MS
    assert ((at - START_MS) // DAY_MS).value_counts()["count"].unique().to_list() == [EVENTS // DAYS]
    assert items["item_id"].to_list() == [f"i{number:07d}" for number in range(ITEMS)]
    assert set(events["item_id"]) < set(items["item_id"])


def test_the_first_eighth_of_the_users_asks_a_quarter_of_the_queries(events: pl.DataFrame) -> None:
    shop = make_shop(EVENTS, ITEMS, 3)
    users = len(shop.user_id)
    assert users == EVENTS // 25
    number = np.argsort(shop.user_id)[events["user_id"].to_numpy()]
    assert within(float((number < users / 8).mean()), 0.25, EVENTS)  # (1/8)^(1/1.5) = 1/4
    assert within(float((number < users / 27).mean()), 1 / 9, EVENTS)  # (1/27)^(2/3) = 1/9


def test_weights_follow_zipf_and_a_twentieth_of_the_items_has_none() -> None:
    weight = make_shop(EVENTS, ITEMS, 3).weight
    assert (weight == 0).sum() == 50  # 5 % of 1009
    there = np.sort(weight[weight > 0])[::-1]
    ranks = np.round(1 / there)
    assert np.allclose(there, 1 / ranks) and np.unique(ranks).size == ITEMS - 50 and ranks.max() <= ITEMS


def test_popularity_averages_to_the_weight_over_a_full_cycle_for_items_that_are_there_from_the_start() -> None:
    shop = make_shop(EVENTS, ITEMS, 3)
    mean = np.mean([popularity(shop, (day + 0.5) / DAYS) for day in range(DAYS)], axis=0)
    old = shop.birth == 0
    assert 0.88 < old.mean() < 0.92
    assert np.allclose(mean[old], shop.weight[old], rtol=1e-5)  # equally spaced sines add up to 0
    assert (popularity(shop, 0.5)[shop.birth > 0.5] == 0).all()


def test_items_are_chosen_as_popularity_and_loyalty_say() -> None:
    shop = make_shop(EVENTS, ITEMS, 3)
    weights = popularity(shop, 0.25)
    edges = np.concatenate([[0.0], np.cumsum(weights)])
    group = np.full(EVENTS, 7, np.int8)
    chosen = synthetic._chosen(shop, edges, group, np.random.default_rng(0))
    own = slice(shop.first[7], shop.first[8])
    assert (weights[chosen] > 0).all()
    inside = weights[own].sum() / weights.sum()
    assert within(float(((chosen >= own.start) & (chosen < own.stop)).mean()), 0.8 + 0.2 * inside, EVENTS)
    best = own.start + int(np.argmax(weights[own]))
    expected = 0.8 * weights[best] / weights[own].sum() + 0.2 * weights[best] / weights.sum()
    assert within(float((chosen == best).mean()), expected, EVENTS)


def test_nobody_chooses_a_bare_item_or_one_before_its_birth(events: pl.DataFrame) -> None:
    shop = make_shop(EVENTS, ITEMS, 3)
    row = np.argsort(shop.number)[events["item_id"].str.slice(1).cast(pl.Int64).to_numpy()]
    day = (events["timestamp"].cast(pl.Int64).to_numpy() - START_MS) // DAY_MS
    assert (shop.weight[row] > 0).all()
    assert (shop.birth[row] <= (day + 0.5) / DAYS).all()


def test_titles_categories_and_prices_tell_the_group(items: pl.DataFrame) -> None:
    groups = items["category"].n_unique()
    assert groups == GROUPS
    words = items.select("category", pl.col("title").str.split(" ").list.head(3)).explode("title")
    assert words.group_by("title").agg(pl.col("category").n_unique())["category"].max() == 1  # a group's words are its own
    common = items["title"].str.split(" ").list.slice(3).explode()
    assert not set(common) & set(words["title"])
    mean = items.group_by("category").agg(pl.col("price").log().mean()).sort(pl.col("category").str.slice(6).cast(pl.Int64))["price"]
    assert mean[-8:].mean() > mean[:8].mean() + 0.5  # log price rises by 1 from the first group to the last: here by 56/64


def test_the_same_numbers_write_the_same_bytes_and_another_seed_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_blocks, "ROWS_AT_ONCE", 500)
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        fetch_project("synthetic", tmp_path / name, console=quiet(), sizes={"events": 3001, "items": 101, "seed": seed})
    files = {name: [(tmp_path / name / f"{table}.parquet").read_bytes() for table in ("events", "items")] for name in "abc"}
    assert files["a"] == files["b"]
    assert files["a"][0] != files["c"][0] and files["a"][1] != files["c"][1]
    metadata = pq.ParquetFile(tmp_path / "a" / "events.parquet").metadata
    assert (metadata.num_rows, metadata.num_row_groups) == (3001, 6)  # days of 50 or 51 rows, ten to a group


def test_large_days_come_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "EVENTS_AT_ONCE", 7)
    blocks = list(event_blocks(make_shop(1200, 101, 3), 1200, 3))
    assert [block.height for block in blocks[:4]] == [7, 7, 6, 7]
    assert pl.concat(blocks)["timestamp"].is_sorted()


def test_the_project_opens_and_is_recognised_when_it_is_there(tmp_path: Path) -> None:
    sizes = {"events": 3001, "items": 101}
    project = open_project(load_config(fetch_project("synthetic", tmp_path, console=quiet(), sizes=sizes)))
    assert (len(project.log), len(project.items)) == (3001, 101)
    console = quiet()
    fetch_project("synthetic", tmp_path, console=console, sizes=sizes)
    assert "nothing to fetch" in said(console)
    again = quiet()
    fetch_project("synthetic", tmp_path, console=again, sizes={**sizes, "seed": 2})
    assert "nothing to fetch" not in said(again)


def test_sizes_are_for_the_shop_alone_and_must_make_one(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="events must go with a dataset that has it; movielens-1m has no options"):
        fetch_project("movielens-1m", tmp_path, console=quiet(), sizes={"events": 5})
    with pytest.raises(FetchError, match="at least 64 items and 1 event; got 63 items and 5 events"):
        fetch_project("synthetic", tmp_path, console=quiet(), sizes={"events": 5, "items": 63})
