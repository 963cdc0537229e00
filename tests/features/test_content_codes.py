"""Content codes: products are those of TF-IDF vectors, exact where the width is enough; new items have them; saved ones come back."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from shortlist.features import content_codes as module
from shortlist.features.content_codes import fit_content_codes, shown_codes, weights_by_age
from shortlist.features.content_words import content_words
from shortlist.features.encoder import TableEncoder, open_encoder

TITLES = (("title", "text"),)
COLUMNS = (("title", "text"), ("kind", "category"), ("tags", "categories"))
FRAME = pl.DataFrame(
    {
        "title": ["Red oak", "oak oak tree", None, "blue Sea", "red red sea", "pine", ""],
        "kind": ["a", "b", None, "a", "b", "c", "b"],
        "tags": [["x", "y"], ["x"], None, [], ["y", None, "z"], ["oak"], ["z"]],
    }
)
SAID = [
    {"red": 1, "oak": 1, "kind=a": 1, "tags=x": 1, "tags=y": 1},
    {"oak": 2, "tree": 1, "kind=b": 1, "tags=x": 1},
    {},
    {"blue": 1, "sea": 1, "kind=a": 1},
    {"red": 2, "sea": 1, "kind=b": 1, "tags=y": 1, "tags=z": 1},
    {"pine": 1, "kind=c": 1, "tags=oak": 1},
    {"kind=b": 1, "tags=z": 1},
]


def slow_products(said: list[dict[str, int]], others: list[dict[str, int]]) -> NDArray[np.float64]:
    """(n, k) cosines of TF-IDF vectors, whose frequencies are counted in SAID; a word of no item of it counts as one of a single item."""
    words = sorted({word for item in (*said, *others, *SAID) for word in item})

    def vectors(items: list[dict[str, int]]) -> NDArray[np.float64]:
        rows = np.zeros((len(items), len(words)))
        for row, item in enumerate(items):
            for word, times in item.items():
                documents = max(sum(word in other for other in SAID), 1)
                rows[row, words.index(word)] = (1 + math.log(times)) * (math.log((1 + len(SAID)) / (1 + documents)) + 1)
        norms = np.sqrt((rows**2).sum(axis=1, keepdims=True))
        return rows / np.where(norms > 0, norms, 1)

    return vectors(said) @ vectors(others).T


def test_words_are_those_of_the_columns() -> None:
    found = content_words(FRAME, COLUMNS)
    rows = [dict(found.filter(pl.col("item") == item).select("word", "times").iter_rows()) for item in range(FRAME.height)]
    assert rows == SAID


@pytest.mark.parametrize(
    "values",
    [pl.Series([None, None], dtype=pl.Null), pl.Series([["a", "b"], ["b", "c"]], dtype=pl.Array(pl.String, 2)), pl.Series([[3, 4], [4]])],
    ids=["nothing", "arrays", "integers"],
)
def test_lists_of_other_types_are_read(values: pl.Series) -> None:
    found = content_words(values.alias("tags").to_frame(), (("tags", "categories"),))
    flat = [] if values.dtype == pl.Null else [f"tags={value}" for value in values.explode(empty_as_null=False, keep_nulls=False)]
    assert sorted(found["word"]) == sorted(flat)


def test_words_are_read_as_text_features_and_vocabularies_read_them() -> None:
    """Composed and decomposed letters, ligatures and truth values that became numbers are the same words."""
    frame = pl.DataFrame({"title": ["Cafe\u0301 \ufb01lm", "caf\u00e9 film"], "kind": [True, False], "tags": [[True], [False, True]]})
    numbers = frame.with_columns(pl.col("kind").cast(pl.Int64), pl.col("tags").cast(pl.List(pl.Int64)))
    found = content_words(frame, COLUMNS)
    assert found.filter(pl.col("item") == 0)["word"].to_list() == ["caf\u00e9", "film", "kind=1", "tags=1"]
    assert found.equals(content_words(numbers, COLUMNS))


def test_one_column_may_be_two_features() -> None:
    found = content_words(pl.DataFrame({"title": ["red oak"]}), (("title", "text"), ("title", "category")))
    assert found["word"].to_list() == ["oak", "red", "title=red oak"]


def test_products_of_different_items_are_exact_where_the_width_is_enough() -> None:
    codes = fit_content_codes(FRAME, COLUMNS, 16).encode(FRAME)
    expected = slow_products(SAID, SAID)
    apart = ~np.eye(len(SAID), dtype=bool)
    np.testing.assert_allclose((codes @ codes.T)[apart], expected[apart], atol=1e-6)
    assert codes.shape[1] == 8  # as many as two items share: kind=a, kind=b, oak, red, sea, tags=x, tags=y, tags=z
    assert not codes[2].any()


def test_a_new_item_matches_by_the_words_that_are_known() -> None:
    found = fit_content_codes(FRAME, COLUMNS, 16)
    new = pl.DataFrame({"title": ["the red tree"], "kind": ["d"], "tags": [["z"]]}, schema=FRAME.schema)
    said = [{"the": 1, "red": 1, "tree": 1, "kind=d": 1, "tags=z": 1}]
    expected = slow_products(said, SAID)[0]
    shared = found.encode(new) @ found.encode(FRAME).T
    alone = [item for item in range(len(SAID)) if item != 1]
    np.testing.assert_allclose(shared[0, alone], expected[alone], atol=1e-6)
    assert shared[0, 1] == 0  # tree is no word that two items of the catalogue have, so nobody can match by it


def random_items(items: int, words: int, seed: int) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    chances = 1 / np.arange(1, words + 1)
    titles = [" ".join(f"w{word}" for word in random.choice(words, 7, p=chances / chances.sum())) for _ in range(items)]
    return pl.DataFrame({"title": titles})


def test_narrow_codes_have_nearly_the_products_of_wide_ones() -> None:
    """301 items of 997 words in 64 numbers: errors are those of 32 random directions for what the 32 leading ones leave."""
    frame = random_items(301, 997, 5)
    exact = fit_content_codes(frame, TITLES, 2000).encode(frame)
    narrow = fit_content_codes(frame, TITLES, 64)
    assert narrow.width == 64
    codes = narrow.encode(frame)
    apart = ~np.eye(301, dtype=bool)
    error = (codes @ codes.T - exact @ exact.T)[apart]
    rest = exact - exact @ narrow.directions[:, :32] @ narrow.directions[:, :32].T
    lengths = np.sqrt((rest**2).sum(axis=1))
    assert np.sqrt((error**2).mean()) == pytest.approx(np.sqrt(np.outer(lengths, lengths)[apart].mean() ** 2 / 32), rel=0.25)
    assert abs(error.mean()) < 0.01
    # all random, there is more left to go wrong
    random = np.random.default_rng(0).standard_normal((exact.shape[1], 64)) / 8
    assert np.sqrt((error**2).mean()) < 0.8 * np.sqrt((((exact @ random) @ (exact @ random).T - exact @ exact.T)[apart] ** 2).mean())


def test_directions_are_found_by_some_items_of_a_large_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = random_items(101, 211, 3)
    whole = fit_content_codes(frame, TITLES, 12)
    monkeypatch.setattr(module, "_MOST_ITEMS", 37)
    some = fit_content_codes(frame, TITLES, 12)
    assert some.words.equals(whole.words) and np.array_equal(some.frequency, whole.frequency)  # words are counted in all
    assert not np.allclose(some.directions, whole.directions)
    exact = fit_content_codes(frame, TITLES, 500).encode(frame)
    error = some.encode(frame) @ some.encode(frame).T - exact @ exact.T
    assert np.abs(error[~np.eye(101, dtype=bool)]).mean() < 0.2


def test_codes_are_the_same_bytes_again() -> None:
    frame = random_items(101, 211, 3)
    first, again = (fit_content_codes(frame, TITLES, 12).encode(frame) for _ in range(2))
    assert np.array_equal(first, again)


def test_items_encoded_alone_or_in_small_blocks_have_the_codes_they_have_together(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = random_items(53, 101, 7)
    found = fit_content_codes(frame, TITLES, 16)
    together = found.encode(frame)
    monkeypatch.setattr(module, "_WORDS_AT_ONCE", 5)
    monkeypatch.setattr(module, "_ITEMS_AT_ONCE", 7)
    np.testing.assert_allclose(found.encode(frame), together, atol=1e-6)
    np.testing.assert_allclose(np.concatenate([found.encode(frame[row]) for row in range(53)]), together, atol=1e-6)


def test_a_catalogue_whose_items_share_no_word_has_codes_of_no_width() -> None:
    frame = pl.DataFrame({"title": ["a", "b", None]})
    found = fit_content_codes(frame, TITLES, 16)
    assert (found.width, found.encode(frame).shape) == (0, (3, 0))


@given(st.lists(st.integers(-1, 6), min_size=1, max_size=5), st.integers(-1, 6))
def test_what_a_query_shows_is_the_sum_by_age(history: list[int], seed: int) -> None:
    codes = fit_content_codes(FRAME, COLUMNS, 16).encode(FRAME)
    found = shown_codes(codes, np.array([seed]), np.array([history]))[0]
    total = (codes[seed] if seed >= 0 else 0) + sum(2 ** (-(place + 1) / 4) * codes[row] for place, row in enumerate(history) if row >= 0)
    length = np.linalg.norm(total)
    np.testing.assert_allclose(found, total / length if length else np.zeros(8), atol=1e-6)
    np.testing.assert_allclose(weights_by_age(4), 2 ** (-np.arange(1, 5) / 4), rtol=1e-6)


def test_codes_come_back_from_disk(tmp_path: Path) -> None:
    found = fit_content_codes(FRAME, COLUMNS, 4)
    TableEncoder({}, found).save(tmp_path, "items")
    again = open_encoder(tmp_path, "items")
    assert again.features == {}
    assert np.array_equal(again.codes(FRAME), found.encode(FRAME))
    TableEncoder({}).save(tmp_path, "plain")
    assert open_encoder(tmp_path, "plain").codes(FRAME) is None
