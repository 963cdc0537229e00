"""Overlay + sealed index + withdrawn rows answer as an index that was built anew over what is left: same ids, same scores."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from unittest.mock import patch

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from shortlist.index.exact import ExactIndex
from shortlist.sections import IndexSettings
from shortlist.serve import admission
from shortlist.serve.answering import merged
from shortlist.serve.ids import Id, IdTable, open_ids
from shortlist.serve.messages import Filters, Predicate
from shortlist.serve.overlay import Overlay, empty_overlay
from shortlist.serve.predicates import PredicateMasks

SEALED, WIDTH, DIM = 23, 5, 3
EXAMPLES = int(os.environ.get("SHORTLIST_OVERLAY_EXAMPLES", "200"))  # sequences of operations; `make chaos` asks for 2,000
COARSE = st.integers(-2, 2)  # few values, so that scores are often equal and ties are met
VECTORS = st.lists(COARSE, min_size=WIDTH, max_size=WIDTH)


@dataclass
class Truth:
    """What is there, by id: the plain way."""

    vectors: dict[Id, np.ndarray]
    kinds: dict[Id, int]

    def best(self, query: np.ndarray, k: int, kinds: set[int] | None, deny: set[Id]) -> tuple[list[Id], list[float]]:
        left = sorted(key for key in self.vectors if (kinds is None or self.kinds[key] in kinds) and key not in deny)
        if not left:
            return [], []
        rows, scores = ExactIndex.build(np.stack([self.vectors[key] for key in left]), IndexSettings()).search(query, k)
        found = rows[0] >= 0
        return [left[row] for row in rows[0][found]], scores[0][found].tolist()


@dataclass
class Sealed:
    """A sealed version, as far as searching goes."""

    ids: IdTable
    frame: pl.DataFrame
    vectors: np.ndarray
    index: ExactIndex
    few: int = admission.FEW  # rows that are left out one by one
    overlay: Overlay = field(init=False)

    def __post_init__(self) -> None:
        self.overlay = empty_overlay(self.frame, DIM, WIDTH)

    def rows_of(self, asked: list[Id]) -> np.ndarray:
        rows = self.ids.rows_of(asked)
        for place, key in enumerate(asked):
            if key in self.overlay.slots:
                rows[place] = SEALED + self.overlay.slots[key]
        return rows

    def best(self, query: np.ndarray, k: int, filters: Filters) -> tuple[list[Id], list[float]]:
        overlay = self.overlay
        masks = PredicateMasks(self.frame, 1000, make=self.index.prepare, size_bytes=lambda made: made.mask.nbytes)
        with patch.object(admission, "FEW", self.few):
            admitted = admission.Admission(overlay, self.index, masks, self.rows_of).of(filters, np.zeros(0, np.int64))
        rows, scores = self.index.search_one(query[0], min(k, SEALED), exclude=admitted.excluded, eligible=admitted.sealed)
        rows, scores = rows[rows >= 0], scores[rows >= 0]
        least = float(scores[-1]) if len(rows) == k else -np.inf
        rows, scores = merged(rows, scores, *overlay.search(query, k, admitted.slots, least), overlay, k)
        named = [overlay.ids[row - SEALED] if row >= SEALED else self.ids.ids_of(np.array([row]))[0] for row in rows]
        return named, scores.tolist()


def sealed_world(seed: int, strings: bool) -> tuple[Sealed, Truth]:
    rng = np.random.default_rng(seed)
    numbers = np.sort(rng.choice(60, SEALED, replace=False))
    ids = pl.Series("id", [f"i{number:02d}" for number in numbers] if strings else numbers)
    kinds = rng.integers(0, 3, SEALED)
    vectors = rng.integers(-2, 3, (SEALED, WIDTH)).astype(np.float32)
    frame = pl.DataFrame({"id": ids, "kind": kinds})
    known = ids.to_list()
    truth = Truth(dict(zip(known, vectors, strict=True)), dict(zip(known, kinds.tolist(), strict=True)))
    return Sealed(open_ids(ids, "item"), frame, vectors, ExactIndex.build(vectors, IndexSettings())), truth


PUT = st.tuples(st.just("put"), st.dictionaries(st.integers(0, 62), st.tuples(VECTORS, st.integers(0, 2)), min_size=1, max_size=4))
DELETE = st.tuples(st.just("delete"), st.lists(st.integers(0, 62), min_size=1, max_size=5))
QUERY = st.tuples(
    st.just("query"),
    VECTORS,
    st.integers(1, 70),
    st.none() | st.sets(st.integers(0, 2), min_size=1),
    st.sets(st.integers(0, 62), max_size=6),
)


@settings(max_examples=EXAMPLES, deadline=None, derandomize=EXAMPLES == 200)
@given(
    seed=st.integers(0, 5),
    strings=st.booleans(),
    few=st.sampled_from([0, 3, 256]),
    operations=st.lists(PUT | DELETE | QUERY, min_size=1, max_size=25),
)
def test_any_sequence_of_writes_answers_as_an_index_built_anew(seed: int, strings: bool, few: int, operations: list[tuple]) -> None:
    sealed, truth = sealed_world(seed, strings)
    sealed.few = few

    def id_of(number: int) -> Id:
        return f"i{number:02d}" if strings else number

    for kind, *rest in [*operations, ("query", [1, -1, 2, 0, 1], 70, None, set())]:
        if kind == "put":
            items = {id_of(number): item for number, item in rest[0].items()}
            vectors = np.array([vector for vector, _ in items.values()], np.float32)
            kinds = {key: value for key, (_, value) in items.items()}
            frame = pl.DataFrame({"id": list(items), "kind": list(kinds.values())}, schema=sealed.frame.schema)
            sealed.overlay = sealed.overlay.with_items(list(items), frame, np.zeros((len(items), DIM), np.float32), vectors, sealed.ids)
            truth.vectors.update(zip(items, vectors, strict=True))
            truth.kinds.update(kinds)
        elif kind == "delete":
            gone = [id_of(number) for number in rest[0]]
            sealed.overlay = sealed.overlay.without(gone, sealed.ids)
            for key in gone:
                truth.vectors.pop(key, None)
        else:
            query, k, kinds, deny = np.array([rest[0]], np.float32), rest[1], rest[2], {id_of(number) for number in rest[3]}
            where = [] if kinds is None else [Predicate(column="kind", any_of=sorted(kinds))]
            ids, scores = sealed.best(query, k, Filters(where=where, deny=list(deny)))
            expected_ids, expected_scores = truth.best(query, k, kinds, deny)
            assert ids == expected_ids
            np.testing.assert_allclose(scores, expected_scores, atol=1e-6)


def test_fine_scores_have_the_same_bits_as_in_an_index_built_anew() -> None:
    rng = np.random.default_rng(3)
    sealed, truth = sealed_world(1, strings=True)
    fresh = rng.standard_normal((17, WIDTH)).astype(np.float32)
    ids: list[Id] = [f"new{number}" for number in range(17)]
    frame = pl.DataFrame({"id": ids, "kind": [0] * 17}, schema=sealed.frame.schema)
    sealed.overlay = sealed.overlay.with_items(ids, frame, np.zeros((17, DIM), np.float32), fresh, sealed.ids)
    truth.vectors.update(zip(ids, fresh, strict=True))
    for _ in range(20):
        query = rng.standard_normal((1, WIDTH)).astype(np.float32)
        for k in (1, 7, 40):
            assert sealed.best(query, k, Filters()) == truth.best(query, k, None, set())


def test_a_write_leaves_the_overlay_before_it_as_it_was() -> None:
    sealed, _ = sealed_world(0, strings=False)
    before = sealed.overlay
    frame = pl.DataFrame({"id": [61], "kind": [0]}, schema=sealed.frame.schema)
    after = before.with_items([61], frame, np.zeros((1, DIM), np.float32), np.ones((1, WIDTH), np.float32), sealed.ids)
    assert len(before) == 0 and len(before.live) == 0 and len(after) == 1
    again = after.without([61], sealed.ids)
    assert after.live.tolist() == [True] and again.live.tolist() == [False]


def test_slots_that_are_not_live_any_more_are_given_up() -> None:
    sealed, _ = sealed_world(0, strings=False)
    frame = pl.DataFrame({"id": [61], "kind": [0]}, schema=sealed.frame.schema)
    overlay = sealed.overlay
    for number in range(500):
        vector = np.full((1, WIDTH), number, np.float32)
        overlay = overlay.with_items([61], frame, np.zeros((1, DIM), np.float32), vector, sealed.ids)
    assert len(overlay) == 1 and len(overlay.ids) < 100
    assert overlay.vectors[overlay.slots[61], 0] == 499
