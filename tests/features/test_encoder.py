"""All features of a table together: fitted on the window alone, saved, the same bits in any portion."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from shortlist.errors import DataError
from shortlist.features.arrays import FeatureArray, flat_arrays
from shortlist.features.encoder import TableEncoder, fit_encoder, open_encoder
from shortlist.sections import FeatureSettings

FEATURES = {
    "id": ("item_id", FeatureSettings(kind="id", unknown_buckets=2)),
    "sort": ("category", FeatureSettings(kind="category", dim=5)),
    "tags": ("tags", FeatureSettings(kind="categories", unknown_buckets=3)),
    "title": ("title", FeatureSettings(kind="text", buckets=61, max_tokens=7)),
    "price": ("price", FeatureSettings(kind="number", buckets=3)),
    "year": ("year", FeatureSettings(kind="number")),
    "look": ("look", FeatureSettings(kind="vector")),
}


def table(count: int = 11) -> pl.DataFrame:
    rng = np.random.default_rng(7)
    words = ["Red", "fish", "don’t", "naïve", "007", "x"]
    return pl.DataFrame(
        {
            "item_id": [f"{number:03d}" for number in range(count)],
            "category": [None if number % 5 == 4 else f"c{number % 3}" for number in range(count)],
            "tags": [None if number % 7 == 6 else rng.integers(0, 9, number % 4).tolist() for number in range(count)],
            "title": [None if number % 4 == 3 else " ".join(rng.choice(words, number % 6)) for number in range(count)],
            "price": [None if number == 2 else float(number) ** 2 for number in range(count)],
            "year": [1990 + number for number in range(count)],
            "look": [None if number == 5 else rng.normal(size=3).tolist() for number in range(count)],
        },
        schema_overrides={"tags": pl.List(pl.Int64), "look": pl.List(pl.Float64)},
    )


def fitted(frame: pl.DataFrame, seen: int = 7) -> TableEncoder:
    return fit_encoder(FEATURES, frame, seen=np.arange(frame.height) < seen)


def the_bytes(columns: dict[str, FeatureArray]) -> dict[str, bytes]:
    return {name: array.dtype.str.encode() + array.tobytes() for name, array in flat_arrays(columns).items()}


def test_every_feature_has_an_array_and_a_number_with_buckets_two() -> None:
    encoder = fitted(table())
    assert list(encoder.encode(table())) == ["id", "sort", "tags", "title", "price", "price#bucket", "year", "look"]
    # id: missing, 2 unknown, 7 seen; category: missing, unknown, c0 c1 c2; text: 61 buckets; number: missing and 3 buckets
    tags = len({tag for line in table()["tags"].head(7).drop_nulls() for tag in line})
    assert encoder.embedded == {
        "id": (10, None),
        "sort": (5, 5),
        "tags": (1 + 3 + tags, None),
        "title": (62, None),
        "price#bucket": (4, None),
    }
    assert encoder.dense_widths == {"price": 2, "year": 2, "look": 4}
    assert encoder.id_feature() == "id"


def test_every_row_points_into_its_table_and_no_number_is_nan() -> None:
    encoder = fitted(table(), seen=5)
    columns = encoder.encode_with_missing(table())
    for name, (rows, _) in encoder.embedded.items():
        assert columns[name].values.min() >= 0 and columns[name].values.max() < rows
    for name, width in encoder.dense_widths.items():
        assert columns[name].values.shape == (12, width) and np.isfinite(columns[name].values).all()


def test_values_outside_the_training_window_change_nothing_that_is_fitted() -> None:
    frame = table()
    outside = pl.Series(np.arange(frame.height) >= 7)
    other = frame.with_columns(
        item_id=pl.when(outside).then(pl.lit("zzz") + pl.col("item_id")).otherwise("item_id"),
        category=pl.when(outside).then(pl.lit("new")).otherwise("category"),
        tags=pl.when(outside).then(pl.lit([99, 98], dtype=pl.List(pl.Int64))).otherwise("tags"),
        title=pl.when(outside).then(pl.lit("other words entirely")).otherwise("title"),
        price=pl.when(outside).then(pl.lit(1e6)).otherwise("price"),
        year=pl.when(outside).then(pl.lit(-7)).otherwise("year"),
        look=pl.when(outside).then(pl.lit([9.0, 9.0, 9.0])).otherwise("look"),
    )
    assert the_bytes(fitted(other).encode(frame)) == the_bytes(fitted(frame).encode(frame))
    assert fitted(other).embedded == fitted(frame).embedded


def test_every_value_of_the_window_counts() -> None:
    """The counterpart: a fit that looked at nothing would pass the test above."""
    frame = table()
    plain = the_bytes(fitted(frame, seen=7).encode(frame))
    wider = the_bytes(fitted(frame, seen=11).encode(frame))
    changed = {name.split(".")[0] for name in plain if plain[name] != wider[name]}
    assert {"id", "tags", "title", "price", "price#bucket", "year"} <= changed


def test_only_chosen_items_have_an_id_of_their_own_while_seen_ones_shape_the_rest() -> None:
    frame = table()
    chosen = np.arange(11) == 3
    encoder = fit_encoder(FEATURES, frame, seen=np.arange(11) < 7, chosen=chosen)
    ids = encoder.encode(frame)["id"].values
    assert ids[3] == 3 and set(np.delete(ids, 3)) <= {1, 2}
    assert the_bytes({"year": encoder.encode(frame)["year"]}) == the_bytes({"year": fitted(frame).encode(frame)["year"]})


def test_a_saved_encoder_gives_the_same_bytes(tmp_path: Path) -> None:
    encoder = fitted(table())
    encoder.save(tmp_path, "items")
    again = open_encoder(tmp_path, "items")
    assert the_bytes(again.encode(table())) == the_bytes(encoder.encode(table()))
    assert (again.embedded, again.dense_widths) == (encoder.embedded, encoder.dense_widths)
    assert {name: feature.settings for name, feature in again.features.items()} == {name: pair[1] for name, pair in FEATURES.items()}
    again.save(tmp_path, "again")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "items.json").read_bytes()
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "items.safetensors").read_bytes()


@pytest.mark.parametrize("ids", [[], ["", "0", "00", "é’\n"], [-(2**63), 0, 2**63 - 1]])
def test_odd_vocabularies_survive_saving(tmp_path: Path, ids: list[object]) -> None:
    column = pl.Series("i", [*ids, None], dtype=None if ids else pl.String)
    encoder = fit_encoder({"a/b.c": ("i", FeatureSettings(kind="id"))}, column.to_frame(), seen=np.ones(len(column), bool))
    encoder.save(tmp_path, "x")
    found = open_encoder(tmp_path, "x").encode(column.to_frame())["a/b.c"].values
    assert found.tolist() == encoder.encode(column.to_frame())["a/b.c"].values.tolist() == [*range(2, 2 + len(ids)), 0]


def test_a_table_without_features_is_fitted_saved_and_encoded(tmp_path: Path) -> None:
    encoder = fit_encoder({}, table(), seen=np.ones(11, bool))
    encoder.save(tmp_path, "none")
    assert open_encoder(tmp_path, "none").encode(table()) == {}


def test_alone_in_blocks_and_in_bulk_a_row_has_the_same_bits() -> None:
    frame = table()
    encoder = fitted(frame)
    bulk = encoder.encode(frame)
    for size in (1, 3):
        for start in range(0, frame.height, size):
            part = encoder.encode(frame[start : start + size])
            rows = np.arange(start, min(start + size, frame.height))
            assert the_bytes(part) == the_bytes({name: column.take(rows) for name, column in bulk.items()})


def test_the_order_of_rows_in_the_window_does_not_matter_to_vocabularies_and_buckets() -> None:
    frame = table()
    order = np.random.default_rng(1).permutation(7).tolist() + list(range(7, 11))
    a, b = fitted(frame).encode(frame), fitted(frame[order]).encode(frame)
    for name in ("id", "sort", "tags", "title", "price#bucket"):
        assert the_bytes({name: a[name]}) == the_bytes({name: b[name]})


def test_the_entry_for_nobody_is_missing_in_every_feature() -> None:
    last = {name: column.take(np.array([-1])) for name, column in fitted(table()).encode_with_missing(table()).items()}
    for name in ("id", "sort", "tags", "title", "price#bucket"):
        assert last[name].values.tolist() == [0]
    assert last["price"].values.tolist() == last["year"].values.tolist() == [[0, 1]]
    assert last["look"].values.tolist() == [[0, 0, 0, 1]]


def test_a_missing_column_is_named_with_those_that_are_there() -> None:
    with pytest.raises(DataError, match="feature 'sort' needs column 'category': got item_id, tags"):
        fitted(table()).encode(table().drop("category"))
    with pytest.raises(DataError, match="feature 'id' needs column 'item_id': got no columns"):
        fitted(table()).encode(pl.DataFrame())


def test_a_newer_snapshot_whose_ids_lost_their_zeros_is_refused() -> None:
    newer = table().with_columns(item_id=pl.col("item_id").cast(pl.Int64))
    with pytest.raises(DataError, match="column 'item_id' must hold String values, as in training: got Int64"):
        fitted(table()).encode(newer)
