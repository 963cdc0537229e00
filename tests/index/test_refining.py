"""What is made of proposed rows has the bits and the order that the exact index gives to them, compiled and by numpy."""

from __future__ import annotations

import pickle
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_index import normal, same

from shortlist.index import refining
from shortlist.index.contract import Float32s, Rows, best_of_one, score_rows
from shortlist.index.refining import Refiner

SIZE, DIM = 997, 23
Found = tuple[Rows, Float32s]


def best_of_rows(query: Float32s, vectors: Float32s, rows: Rows, k: int, largest: float) -> Found:
    """What both ways answer, which is the same."""
    found, by_numpy = Refiner(vectors).best(query, rows, k, largest), refining.best_of_rows(query, vectors, rows, k, largest)
    assert same(found, by_numpy)
    return found


def leading(query: Float32s, vectors: Float32s, rows: Rows, count: int, largest: float) -> Rows:
    return Refiner(vectors).leading(query, rows, count, largest)


def largest(query: np.ndarray, vectors: np.ndarray) -> float:
    return float(np.linalg.norm(query) * np.linalg.norm(vectors, axis=1).max()) * 1.001


@settings(max_examples=80, deadline=None, derandomize=True)
@given(seed=st.integers(0, 99), k=st.integers(1, 30), times=st.integers(1, 7), ties=st.booleans(), scale=st.sampled_from([1e-30, 1, 1e12]))
def test_the_best_of_rows_are_those_of_plain_scoring_and_sorting(seed: int, k: int, times: int, ties: bool, scale: float) -> None:
    random = np.random.default_rng(seed)
    vectors, query = normal(seed, SIZE, DIM), normal(seed + 1, DIM)
    if ties:  # small integers: equal scores everywhere, zeros of both signs among them
        vectors, query = np.sign(np.rint(vectors)).astype(np.float32), np.sign(np.rint(query)).astype(np.float32)
    vectors *= np.float32(scale)
    rows = random.permutation(SIZE)[: k * times]
    most = largest(query, vectors)
    found = best_of_rows(query, vectors, rows, k, most)
    assert same(found, best_of_one(rows, score_rows(query, vectors, rows, most), k))
    assert not np.signbit(found[1][found[1] == 0]).any()


def test_rows_whose_sums_lie_at_the_edge_of_rounding_get_the_canonical_score() -> None:
    """1 + 2^-24 lies halfway between two float32: which one it becomes hangs on the last bit of the sum."""
    query = np.array([1, 2.0**-12, 2.0**-30], np.float32)
    vectors = np.array([[1, 2.0**-12, 0], [1, 2.0**-12, 2.0**-22], [1, 2.0**-12, -(2.0**-22)], [0.5, 0, 0]], np.float32)
    rows, scores = best_of_rows(query, vectors, np.array([3, 0, 2, 1]), 4, 1e3)  # a bound that makes all of them unsure
    assert rows.tolist() == [1, 0, 2, 3]
    assert scores.tolist() == [1 + 2.0**-23, 1.0, 1.0, 0.5]  # halves go to the even neighbour, 1


@pytest.mark.parametrize("count", [1, 10, 199, 200, 201])
def test_the_leading_rows_hold_the_best_and_hardly_more(count: int) -> None:
    vectors, query = normal(1, SIZE, DIM), normal(2, DIM)
    rows = np.random.default_rng(3).permutation(SIZE)[:200]
    most = largest(query, vectors)
    kept = leading(query, vectors, rows, count, most)
    best, _ = best_of_one(rows, score_rows(query, vectors, rows, most), min(count, 200))
    assert set(best) <= set(kept) and len(kept) <= min(count + 1, 200)


def test_more_dimensions_than_one_pass_of_sums_has_lanes_and_more_rows_than_are_compiled_for() -> None:
    vectors, query = normal(5, 5003, 67), normal(6, 67)
    most = largest(query, vectors)
    for count in (4096, 4097, 5003):
        rows = np.random.default_rng(count).permutation(5003)[:count]
        assert same(best_of_rows(query, vectors, rows, 31, most), best_of_one(rows, score_rows(query, vectors, rows, most), 31))


def test_equal_scores_everywhere_come_by_row() -> None:
    vectors = np.ones((701, 5), np.float32)
    rows, scores = best_of_rows(np.ones(5, np.float32), vectors, np.random.default_rng(7).permutation(701), 700, 5.01)
    assert rows.tolist() == list(range(700)) and (scores == 5).all()


def test_rows_beyond_two_to_the_sixteen_keep_all_their_bits() -> None:
    vectors = np.zeros((70_001, 1), np.float32)
    vectors[[70_000, 65_536, 3]] = 1
    rows, _ = best_of_rows(np.ones(1, np.float32), vectors, np.array([70_000, 4, 65_536, 3]), 4, 1.01)
    assert rows.tolist() == [3, 65_536, 70_000, 4]


@pytest.mark.parametrize("row", [-1, 11, 2**40])
def test_a_row_that_is_not_there_is_refused_both_ways(row: int) -> None:
    vectors, query, rows = normal(3, 11, 5), normal(4, 5), np.array([3, row])
    with pytest.raises(IndexError):
        Refiner(vectors).best(query, rows, 1, 1e3)
    with pytest.raises(IndexError):
        refining.best_of_rows(query, vectors, rows, 1, 1e3)


@pytest.mark.parametrize(("count", "k"), [(2, 3), (2, 0), (0, 1), (5000, 5001)])
def test_more_results_than_rows_are_refused(count: int, k: int) -> None:
    with pytest.raises(ValueError, match=rf"k must be one of 1\.\.{count}, the rows proposed: got {k}"):
        Refiner(normal(3, 5003, 5)).best(normal(4, 5), np.arange(count), k, 1e3)


def test_vectors_that_are_mapped_read_only_and_the_longest_that_are_compiled_for(tmp_path: Path) -> None:
    for dim in (4096, 4097):
        np.save(tmp_path / "vectors.npy", normal(13, 17, dim))
        vectors, query = np.load(tmp_path / "vectors.npy", mmap_mode="r"), normal(14, dim)
        assert Refiner(vectors).is_compiled == (dim == 4096 and Refiner(normal(8, 3, 2)).is_compiled)
        best_of_rows(query, vectors, np.arange(17), 5, largest(query, vectors))


def test_here_where_a_compiler_is_it_is_used() -> None:
    assert Refiner(normal(8, 3, 2)).is_compiled == (shutil.which("gcc") is not None or shutil.which("cc") is not None)


@pytest.fixture
def built_anew() -> Iterator[None]:
    refining._compiled.cache_clear()
    yield
    refining._compiled.cache_clear()


@pytest.mark.usefixtures("built_anew")
def test_without_a_compiler_numpy_answers_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, query, rows = normal(9, 53, 7), normal(10, 7), np.arange(53)
    compiled = Refiner(vectors).best(query, rows, 11, largest(query, vectors))
    refining._compiled.cache_clear()
    monkeypatch.setattr(shutil, "which", lambda name: None)
    refiner = Refiner(vectors)
    assert not refiner.is_compiled
    assert same(refiner.best(query, rows, 11, largest(query, vectors)), compiled)


def test_a_copy_has_vectors_and_places_of_its_own() -> None:
    vectors, query, rows = normal(15, 53, 7), normal(16, 7), np.arange(53)
    refiner = Refiner(vectors)
    expected = refiner.best(query, rows, 11, largest(query, vectors))
    copied = pickle.loads(pickle.dumps(refiner))
    del refiner
    assert same(copied.best(query, rows, 11, largest(query, vectors)), expected)


def test_threads_do_not_see_each_others_rows() -> None:
    vectors = normal(11, SIZE, DIM)
    refiner, queries = Refiner(vectors), normal(12, 60, DIM)

    def answered(number: int) -> bool:
        query, rows = queries[number], np.random.default_rng(number).permutation(SIZE)[: 40 + number]
        most = largest(query, vectors)
        expected = best_of_one(rows, score_rows(query, vectors, rows, most), 17)
        return all(same(refiner.best(query, rows, 17, most), expected) for _ in range(20))

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # so that threads meet between laying rows out and taking results
    try:
        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(answered, range(60)))
    finally:
        sys.setswitchinterval(before)
