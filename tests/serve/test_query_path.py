"""One request's vector has the bits that the bundle gives it, for every kind of feature, through published, given and overlaid items."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from serve_settings import quiet_settings
from small_project import silent, small_config, write_tables

from shortlist.bundle import Bundle, open_bundle
from shortlist.export import publish_run
from shortlist.project import open_project
from shortlist.recommender import recommend
from shortlist.run import train_run
from shortlist.serve.messages import RecommendRequest
from shortlist.serve.service import Service

KINDS: dict[str, Any] = {
    "seed": "item",
    "history": {"kind": "items", "last": 7},
    "users.age": "category",
    "users.tags": "categories",
    "users.weight": {"kind": "number", "buckets": 3},
    "users.motto": {"kind": "text", "buckets": 31},
    "users.look": "vector",
    "events.weekday": {"kind": "category", "unknown_buckets": 3},
    "events.hour": {"kind": "category", "unknown_buckets": 2},
    "events.device": {"kind": "categories", "unknown_buckets": 2},
    "events.words": {"kind": "text", "buckets": 53},
    "events.spend": {"kind": "number", "buckets": 4},
    "events.mood": "vector",
}
MODELS: dict[str, dict[str, Any]] = {
    "item bias": {},
    "attention": {"history_pooling": "attention", "cross_layers": 1, "cross_rank": 3},
    "no history": {"item_bias": False},
}


@pytest.fixture(scope="module", params=list(MODELS))
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("path")
    write_tables(folder)
    rng = np.random.default_rng(1)
    events = pl.read_parquet(folder / "events.parquet")
    events.with_columns(
        hour=pl.Series(rng.integers(0, 24, events.height)),
        device=pl.Series([[f"d{value}" for value in range(count)] for count in rng.integers(0, 4, events.height)]),
        words=pl.Series([None if row % 13 == 0 else f"Oak tree {row % 7}" for row in range(events.height)]),
        spend=pl.Series([None if row % 11 == 0 else float(rng.gamma(2.0)) for row in range(events.height)]),
        mood=pl.Series([None if row % 17 == 0 else rng.standard_normal(2).tolist() for row in range(events.height)]),
    ).write_parquet(folder / "events.parquet")
    users = pl.read_parquet(folder / "users.parquet")
    users.with_columns(
        tags=pl.Series([[f"t{row % 5}", f"t{row % 3}"][: row % 3] for row in range(users.height)]),
        weight=pl.Series([None if row % 7 == 0 else float(row) for row in range(users.height)]),
        motto=pl.Series([f"be {row % 5} kind" for row in range(users.height)]),
        look=pl.Series([[float(row), 1.0, -1.0] for row in range(users.height)]),
    ).write_parquet(folder / "users.parquet")
    kinds = {name: kind for name, kind in KINDS.items() if request.param != "no history" or name not in ("seed", "history")}
    model = {"embedding_dim": 8, "hidden": [19, 11], **MODELS[request.param]}
    project = open_project(small_config(folder, {"query": {"features": kinds}, "model": model, "train": {"epochs": 1}}))
    publish_run(train_run(project, project.log, folder / "run", log_to=silent), folder / "store")
    return folder / "store"


@pytest.fixture(scope="module")
def bundle(store: Path) -> Bundle:
    return open_bundle(store / "v000001")


@pytest.fixture(scope="module")
def service(store: Path) -> Service:
    return Service.open(store, quiet_settings())


def test_what_is_shown_changes_what_popularity_counts_here(bundle: Bundle) -> None:
    """Or the tests below could not tell whether the online path looks at it."""
    assert ("query/#popularity" in bundle.tables) is (bundle.item_encoder.content is not None)
    if bundle.item_encoder.content is not None:
        assert bundle.tables["query/#popularity"][0, 0] != 0
        shows = pl.DataFrame({"history": [["i00"], ["i01"], ["i52"], []]}, schema={"history": pl.List(pl.String)})
        factors = bundle.encode_queries(bundle.query_encoder.encode(shows, bundle.items, bundle.users))[:, bundle.dim]
        assert len(set(factors.tolist())) > 2 and factors[3] == 1


CONTEXTS: tuple[dict[str, Any], ...] = (
    {},
    {"weekday": "day 3", "hour": 7, "device": ["d1", "d0"], "words": "An Oak_tree, 5!", "spend": 1.25, "mood": [0.5, -2]},
    {"weekday": "no such day", "hour": 99, "device": ["d9", "d1", "d9"], "words": "Bäume – 木 ﬁne", "spend": 0, "mood": [1, 2]},
    {"weekday": None, "hour": True, "device": [], "words": "", "spend": None, "mood": None},
    {"device": ["d1", None], "words": "!?", "spend": True, "mood": [1e-3, 7.0]},
    {"words": " ".join(f"word{number}" for number in range(200)), "spend": -(2**60)},
    {"words": "naïve"},
)
WHO: tuple[dict[str, Any], ...] = (
    {},
    {"user": 5},
    {"user": 999},
    {"user": 60, "seed": "i04"},
    {"user": 3, "history": []},
    {"seed": "no such item", "history": ["i01", "gone", "i02"]},
    {"history": [f"i{row:02d}" for row in range(20)]},
    {"user": 7, "seed": "i52", "history": ["i52", "i52"]},
)


def in_bulk(bundle: Bundle, who: dict[str, Any], context: dict[str, Any]) -> pl.DataFrame:
    columns = {"user": None, "seed": None, "history": None, **who, **context}
    dtypes: dict[str, Any] = {"user": pl.Int64, "seed": pl.String, "history": pl.List(pl.String), "hour": None}
    return pl.DataFrame({name: pl.Series(name, [value], dtype=dtypes.get(name), strict=False) for name, value in columns.items()})


@pytest.mark.parametrize("who", range(len(WHO)))
@pytest.mark.parametrize("context", range(len(CONTEXTS)))
def test_one_request_is_answered_as_the_bundle_answers_it_to_the_bit(service: Service, bundle: Bundle, who: int, context: int) -> None:
    expected = recommend(bundle, in_bulk(bundle, WHO[who], CONTEXTS[context]), 53)
    slate = service.recommend(RecommendRequest(**WHO[who], context=CONTEXTS[context], k=53))
    assert slate.items == expected["items"].to_list()[0]
    assert np.array(slate.scores, np.float32).tobytes() == expected["scores"].to_numpy()[0].tobytes()
