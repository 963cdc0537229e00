"""What every index must do. A new index joins IMPLEMENTATIONS, at settings that make it exact on these small corpora."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_index import needs, normal, same, some_of

from shortlist.errors import BundleError, ShapeError
from shortlist.index import contract
from shortlist.index.contract import Index
from shortlist.index.exact import ExactIndex
from shortlist.index.faiss import FaissIndex
from shortlist.index.int8 import Int8Index
from shortlist.index.scann import ScannIndex
from shortlist.sections import IndexSettings

EVERYWHERE = {"searched": 10**6, "rescored": 10**6}  # all partitions, all rows
IMPLEMENTATIONS: list[Any] = [
    pytest.param(ExactIndex, IndexSettings(kind="exact"), id="exact"),
    pytest.param(Int8Index, IndexSettings(kind="int8"), id="int8", marks=needs("onnx")),
    pytest.param(ScannIndex, IndexSettings(kind="scann", leaves=5, build_threads=1, **EVERYWHERE), id="scann", marks=needs("scann")),
    pytest.param(FaissIndex, IndexSettings(kind="faiss", leaves=5, build_threads=1, **EVERYWHERE), id="faiss", marks=needs("faiss")),
]
every_index = pytest.mark.parametrize(("kind", "how"), IMPLEMENTATIONS)

B, M, D = 37, 211, 13  # all different, all prime


def small_integers(seed: int, *shape: int) -> np.ndarray:
    """Vectors whose inner products are small integers: exact in any order, and full of ties."""
    return np.random.default_rng(seed).integers(-1, 2, size=shape).astype(np.float32)


def true_score(query: np.ndarray, vector: np.ndarray) -> float:
    """The inner product in exact arithmetic, rounded once to float64 and once to float32."""
    total = sum((Fraction(float(q)) * Fraction(float(v)) for q, v in zip(query, vector, strict=True)), Fraction(0))
    return float(np.float32(float(total)))


def slow_search(
    queries: np.ndarray,
    vectors: np.ndarray,
    k: int,
    exclude: Sequence[Sequence[int]] | None = None,
    eligible: np.ndarray | None = None,
) -> tuple[list[list[int]], list[list[float]]]:
    """The contract read aloud: score every row, drop the ineligible and the excluded, sort by (-score, row), cut, pad."""
    rows, scores = [], []
    for number, query in enumerate(queries):
        out = set(exclude[number]) if exclude is not None else set()
        out |= set(np.flatnonzero(~eligible).tolist()) if eligible is not None else set()
        found = sorted((-true_score(query, vector), row) for row, vector in enumerate(vectors) if row not in out)[:k]
        rows.append([row for _, row in found] + [-1] * (k - len(found)))
        scores.append([-negative for negative, _ in found] + [-math.inf] * (k - len(found)))
    return rows, scores


def as_lists(found: tuple[np.ndarray, np.ndarray]) -> tuple[list[list[int]], list[list[float]]]:
    return found[0].tolist(), found[1].tolist()


@every_index
@pytest.mark.parametrize("k", [1, 7, 101])
def test_results_are_the_best_rows_best_first(kind: type[Index], how: IndexSettings, k: int) -> None:
    vectors, queries = normal(1, 101, D), normal(2, 5, D)
    rows, scores = kind.build(vectors, how).search(queries, k)
    assert rows.dtype == np.int64 and scores.dtype == np.float32 and rows.shape == scores.shape == (5, k)
    true_rows, true_scores = slow_search(queries, vectors, k)
    assert rows.tolist() == true_rows
    assert scores.tolist() == true_scores


@every_index
def test_results_by_hand(kind: type[Index], how: IndexSettings) -> None:
    vectors = np.array([[1, 0], [0, 2], [-3, 1], [1, 1]], np.float32)
    index = kind.build(vectors, how)
    assert (index.kind, index.size, index.dim) == (how.kind, 4, 2)
    rows, scores = index.search(np.array([[1, 1], [-1, 0], [0, 0]], np.float32), 3)
    # (1, 1): 1, 2, -2, 2 -> rows 1 and 3 tie. (-1, 0): -1, 0, 3, -1 -> rows 0 and 3 tie for the last place. zero: all tie.
    assert rows.tolist() == [[1, 3, 0], [2, 1, 0], [0, 1, 2]]
    assert scores.tolist() == [[2, 2, 1], [3, 0, -1], [0, 0, 0]]


@every_index
@given(seed=st.integers(0, 10_000), k=st.integers(1, 40), dim=st.integers(1, 5), size=st.integers(1, 31))
@settings(max_examples=40, deadline=None)
def test_ties_go_to_the_lower_row(kind: type[Index], how: IndexSettings, seed: int, k: int, dim: int, size: int) -> None:
    vectors, queries = small_integers(seed, size, dim), small_integers(seed + 1, 3, dim)
    random = np.random.default_rng(seed)
    exclude = [random.integers(-2, size + 2, size=count) for count in (0, 3, 17)]
    rows, scores = kind.build(vectors, how).search(queries, k, exclude=exclude)
    true_rows, true_scores = slow_search(queries, vectors, k, [part.tolist() for part in exclude])
    assert rows.tolist() == true_rows
    assert scores.tolist() == true_scores


@every_index
@pytest.mark.parametrize("k", [1, 10, 1009, 1500])
def test_equal_scores_everywhere_give_the_lowest_rows(kind: type[Index], how: IndexSettings, k: int) -> None:
    index = kind.build(np.tile(normal(1, 1, D), (1009, 1)), how)
    for queries in (normal(2, 3, D), np.zeros((3, D), np.float32)):
        rows, scores = index.search(queries, k)
        assert (rows == np.where(np.arange(k) < 1009, np.arange(k), -1)).all()
        assert (scores[:, : min(k, 1009)] == scores[:, :1]).all()


@every_index
def test_near_ties_are_ordered_by_the_canonical_score(kind: type[Index], how: IndexSettings) -> None:
    """Copies moved by one unit in the last place: what a matrix product's rounding would shuffle."""
    base = np.tile(normal(1, 1, D), (307, 1))
    column = np.random.default_rng(2).integers(D, size=307)
    base[np.arange(307), column] = np.nextafter(base[np.arange(307), column], np.float32(9))
    queries = normal(3, 4, D)
    rows, scores = kind.build(base, how).search(queries, 19)
    true_rows, true_scores = slow_search(queries, base, 19)
    assert rows.tolist() == true_rows
    assert scores.tolist() == true_scores


@every_index
def test_an_answer_has_the_same_bits_alone_and_in_any_batch(kind: type[Index], how: IndexSettings) -> None:
    queries = normal(4, B, 67)
    index = kind.build(normal(3, 1009, 67), how)
    exclude = [np.arange(number) * 3 for number in range(B)]
    for k in (1, 11):
        together = index.search(queries, k, exclude=exclude)
        for number in range(B):
            alone = index.search(queries[number : number + 1], k, exclude=exclude[number : number + 1])
            assert same(alone, (together[0][number : number + 1], together[1][number : number + 1]))
        order = np.random.default_rng(5).permutation(B)
        shuffled = index.search(queries[order], k, exclude=[exclude[number] for number in order])
        assert same(shuffled, (together[0][order], together[1][order]))


@every_index
def test_a_search_does_not_change_the_index_or_what_it_was_given(kind: type[Index], how: IndexSettings) -> None:
    vectors, queries, exclude = normal(1, M, D), normal(2, B, D), [np.array([3, 3, -1])] * B
    before = vectors.copy(), queries.copy()
    used, fresh = kind.build(vectors, how), kind.build(vectors.copy(), how)
    used.search(queries, 10, exclude=exclude)
    assert same(used.search(queries, 1000), fresh.search(queries, 1000))
    assert (vectors == before[0]).all() and (queries == before[1]).all() and exclude[0].tolist() == [3, 3, -1]


@every_index
def test_a_shorter_search_is_the_start_of_a_longer_one(kind: type[Index], how: IndexSettings) -> None:
    index, queries = kind.build(normal(1, M, D), how), normal(2, B, D)
    rows, scores = index.search(queries, 50)
    assert same(index.search(queries, 9), (np.ascontiguousarray(rows[:, :9]), np.ascontiguousarray(scores[:, :9])))


@every_index
def test_k_beyond_the_corpus_is_padded(kind: type[Index], how: IndexSettings) -> None:
    rows, scores = kind.build(normal(1, 3, 2), how).search(normal(2, 2, 2), 5)
    assert (np.sort(rows[:, :3], axis=1) == [0, 1, 2]).all()
    assert (rows[:, 3:] == -1).all() and np.isneginf(scores[:, 3:]).all() and np.isfinite(scores[:, :3]).all()


@every_index
def test_excluded_rows_are_left_out_and_k_others_come_back(kind: type[Index], how: IndexSettings) -> None:
    vectors, queries = normal(1, M, D), normal(2, B, D)
    index = kind.build(vectors, how)
    best, _ = index.search(queries, 20)
    rows, scores = index.search(queries, 7, exclude=list(best[:, :13]))
    assert (rows == best[:, 13:]).all() and np.isfinite(scores).all()
    everything = [np.arange(M)] + [np.empty(0, np.int64)] * (B - 1)
    rows, scores = index.search(queries, 7, exclude=everything)
    assert (rows[0] == -1).all() and np.isneginf(scores[0]).all()  # its batch-mates lose nothing:
    assert (rows[1:] == best[1:, :7]).all()


@every_index
def test_unknown_and_repeated_exclusions_change_nothing(kind: type[Index], how: IndexSettings) -> None:
    index, queries = kind.build(normal(1, M, D), how), normal(2, 3, D)
    plain = index.search(queries, 5, exclude=[np.array([4, 9])] * 3)
    noisy = index.search(queries, 5, exclude=[np.array([-1, 9, 4, 4, M, M + 7, -5, 2**40], np.int64)] * 3)
    assert same(plain, noisy)
    assert same(index.search(queries, 5), index.search(queries, 5, exclude=[np.array([])] * 3))


@every_index
@pytest.mark.parametrize("count", [0, 1, 2, 11, 26, 27, 101, 210, 211])  # around an eighth of M = 211, and around k
def test_only_eligible_rows_come_back_and_k_of_them_while_there_are_k(kind: type[Index], how: IndexSettings, count: int) -> None:
    vectors, queries, mask = normal(1, M, D), normal(2, 5, D), some_of(M, count)
    random = np.random.default_rng(3)
    exclude = [random.integers(-3, M + 3, size=size) for size in (0, 1, 19, 100, 400)]
    index = kind.build(vectors, how)
    for k in (1, 11, 223):
        assert as_lists(index.search(queries, k, eligible=mask)) == slow_search(queries, vectors, k, eligible=mask)
        both = index.search(queries, k, exclude=exclude, eligible=index.prepare(mask))
        assert as_lists(both) == slow_search(queries, vectors, k, [part.tolist() for part in exclude], mask)


@every_index
@given(seed=st.integers(0, 10_000), k=st.integers(1, 40), size=st.integers(1, 31), share=st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_ties_among_eligible_rows_go_to_the_lower_row(
    kind: type[Index], how: IndexSettings, seed: int, k: int, size: int, share: float
) -> None:
    vectors, queries = small_integers(seed, size, 3), small_integers(seed + 1, 3, 3)
    mask = np.random.default_rng(seed).random(size) < share
    exclude = [np.arange(number) for number in (0, 3, 17)]
    found = kind.build(vectors, how).search(queries, k, exclude=exclude, eligible=mask)
    assert as_lists(found) == slow_search(queries, vectors, k, [part.tolist() for part in exclude], mask)


@every_index
def test_all_rows_eligible_is_no_filter_and_a_filter_keeps_the_order(kind: type[Index], how: IndexSettings) -> None:
    index, queries = kind.build(normal(1, M, D), how), normal(2, B, D)
    assert same(index.search(queries, 9, eligible=np.ones(M, bool)), index.search(queries, 9))
    everything, _ = index.search(queries, M)
    for count in (13, 150):
        mask = some_of(M, count)
        filtered, _ = index.search(queries, 13, eligible=mask)
        assert filtered.tolist() == [line[mask[line]][:13].tolist() for line in everything]


@every_index
def test_prepared_rows_do_not_follow_their_mask_and_serve_many_searches(kind: type[Index], how: IndexSettings) -> None:
    index, queries, mask = kind.build(normal(1, M, D), how), normal(2, B, D), some_of(M, 20)
    first = index.search(queries, 7, eligible=mask)
    prepared = index.prepare(mask)
    assert (len(prepared), prepared.rows.tolist()) == (20, np.flatnonzero(mask).tolist())
    mask[:] = False
    assert same(index.search(queries, 7, eligible=prepared), first)
    for number in range(B):
        rows, scores = index.search_one(queries[number], 7, eligible=prepared)
        assert same((rows, scores), (first[0][number], first[1][number]))
    with pytest.raises(ValueError, match="read-only"):
        prepared.mask[0] = True


@every_index
def test_masks_that_do_not_fit_are_refused(kind: type[Index], how: IndexSettings) -> None:
    index, queries = kind.build(normal(1, M, D), how), normal(2, 3, D)
    for mask in (np.ones(M + 1, bool), np.ones(M, np.int64), np.ones((M, 1), bool), [True] * M):
        with pytest.raises(ShapeError, match=r"eligible must be a mask \(211,\) of bool.* got (bool|int64|list)"):
            index.search(queries, 5, eligible=mask)  # type: ignore[arg-type]
    other = kind.build(normal(1, M, D), how).prepare(np.ones(M, bool))
    with pytest.raises(ValueError, match=r"prepared by the index that is searched: got those of another .* index of 211 rows"):
        index.search(queries, 5, eligible=other)
    nobody = index.prepare(np.zeros(M, bool))
    with pytest.raises(ShapeError, match="dimension 13: got 12"):
        index.search(queries[:, :12], 5, eligible=nobody)


@every_index
def test_one_query_gets_what_it_gets_in_a_batch(kind: type[Index], how: IndexSettings) -> None:
    index, queries, mask = kind.build(normal(1, M, D), how), normal(2, B, D), some_of(M, 150)
    exclude = [np.arange(number) * 3 for number in range(B)]
    for k in (1, 11, M + 2):
        plain, filtered = index.search(queries, k), index.search(queries, k, exclude=exclude, eligible=mask)
        for number, query in enumerate(queries):
            assert same(index.search_one(query, k), (plain[0][number], plain[1][number]))
            alone = index.search_one(query, k, exclude=exclude[number], eligible=mask)
            assert same(alone, (filtered[0][number], filtered[1][number]))
    strided = np.repeat(queries, 2, axis=1)[5, ::2]
    assert same(index.search_one(strided, 5), index.search_one(queries[5], 5))


@every_index
def test_one_query_that_cannot_be_answered_is_refused(kind: type[Index], how: IndexSettings) -> None:
    index, query = kind.build(normal(1, M, D), how), normal(2, D)
    with pytest.raises(ShapeError, match=r"one array \(13,\) of float32: got float32 of shape \(1, 13\)"):
        index.search_one(query[None], 5)
    with pytest.raises(ShapeError, match="got list"):
        index.search_one(query.tolist(), 5)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="float64"):
        index.search_one(query.astype(np.float64), 5)
    with pytest.raises(ShapeError, match="dimension 13: got 12"):
        index.search_one(query[:12], 5)
    with pytest.raises(ShapeError, match=r"exclude\[0\] .* got float64"):
        index.search_one(query, 5, exclude=np.array([1.5]))
    with pytest.raises(ValueError, match="k must be an integer of at least 1: got 0"):
        index.search_one(query, 0)
    for value in (math.nan, math.inf):
        query[4] = value
        with pytest.raises(ValueError, match=f"got {value} in row 0, column 4"):
            index.search_one(query, 5)
    with pytest.raises(ValueError, match=r"norms up to 1e\+18: got"):
        index.search_one(np.full(D, 1e19, np.float32), 5)


@every_index
def test_no_queries_get_no_results(kind: type[Index], how: IndexSettings) -> None:
    index, nothing = kind.build(normal(1, 5, 2), how), np.empty((0, 2), np.float32)
    for eligible in (None, np.ones(5, bool), np.arange(5) == 3, np.zeros(5, bool)):
        rows, scores = index.search(nothing, 3, exclude=[], eligible=eligible)
        assert rows.shape == scores.shape == (0, 3)


@every_index
def test_one_item_of_one_dimension_can_be_found(kind: type[Index], how: IndexSettings) -> None:
    rows, scores = kind.build(np.array([[-2]], np.float32), how).search(np.array([[3], [-3]], np.float32), 2)
    assert rows.tolist() == [[0, -1], [0, -1]]
    assert scores.tolist() == [[-6, -math.inf], [6, -math.inf]]


@every_index
def test_very_large_and_very_small_vectors_are_still_ordered(kind: type[Index], how: IndexSettings) -> None:
    vectors = np.array([[1e-30], [3e-30], [1e18], [-1e18]], np.float32)
    rows, scores = kind.build(vectors, how).search(np.array([[1e18], [1e-8]], np.float32), 4)
    assert rows.tolist() == [[2, 1, 0, 3], [2, 1, 0, 3]]
    assert np.isfinite(scores).all()


@every_index
def test_memory_mapped_and_strided_vectors_give_the_same_bits(kind: type[Index], how: IndexSettings, tmp_path: Path) -> None:
    vectors, queries = normal(1, M, D), normal(2, B, D)
    np.save(tmp_path / "vectors.npy", vectors)
    expected = kind.build(vectors, how).search(queries, 9)
    assert same(expected, kind.build(np.load(tmp_path / "vectors.npy", mmap_mode="r"), how).search(queries, 9))
    assert same(expected, kind.build(np.repeat(vectors, 3, axis=1)[:, ::3], how).search(np.asfortranarray(queries), 9))


@every_index
def test_a_saved_index_opens_to_the_same_answers(kind: type[Index], how: IndexSettings, tmp_path: Path) -> None:
    vectors, queries = normal(1, M, D), normal(2, B, D)
    index = kind.build(vectors, how)
    index.save(tmp_path)
    opened = kind.open(tmp_path, vectors)
    assert (opened.kind, opened.is_exact, opened.size, opened.dim) == (index.kind, index.is_exact, M, D)
    assert same(index.search(queries, 10), opened.search(queries, 10))


@every_index
def test_an_index_refuses_to_open_over_other_vectors(kind: type[Index], how: IndexSettings, tmp_path: Path) -> None:
    kind.build(normal(1, M, D), how).save(tmp_path)
    for other in (normal(1, M + 1, D), normal(1, M, D + 1)):
        with pytest.raises(BundleError, match=str(tmp_path)):
            kind.open(tmp_path, other)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(BundleError, match="empty"):
        kind.open(empty, normal(1, M, D))


@every_index
def test_a_corpus_that_cannot_be_searched_is_refused(kind: type[Index], how: IndexSettings) -> None:
    good = normal(1, M, D)
    for bad in (good.astype(np.float64), good[0], good[:0], good[:, :0], good.astype(np.int64)):
        with pytest.raises(ShapeError, match=r"vectors must .* got"):
            kind.build(bad, how)
    with pytest.raises(ShapeError, match="got list"):
        kind.build(good.tolist(), how)  # type: ignore[arg-type]
    for value in (math.nan, math.inf, -math.inf):
        broken = good.copy()
        broken[101, 7] = broken[150, 2] = value
        with pytest.raises(ValueError, match=rf"got {value} in row 101, column 7 \(2 bad rows\)"):
            kind.build(broken, how)
    broken = good.copy()
    broken[3] = 1e19
    with pytest.raises(ValueError, match=r"norms up to 1e\+18: got 3\.6\S* in row 3"):
        kind.build(broken, how)


@every_index
def test_queries_that_cannot_be_answered_are_refused(kind: type[Index], how: IndexSettings) -> None:
    index, queries = kind.build(normal(1, M, D), how), normal(2, 3, D)
    with pytest.raises(ShapeError, match="dimension 13: got 12"):
        index.search(queries[:, :12], 5)
    with pytest.raises(ShapeError, match="float64"):
        index.search(queries.astype(np.float64), 5)
    with pytest.raises(ShapeError, match=r"shape \(13,\)"):
        index.search(queries[0], 5)
    queries[2, 4] = math.nan
    with pytest.raises(ValueError, match="got nan in row 2, column 4"):
        index.search(queries, 5)
    for k in (0, -3, 2.0, True, None):
        with pytest.raises(ValueError, match=f"k must be an integer of at least 1: got {k}"):
            index.search(normal(2, 3, D), k)  # type: ignore[arg-type]


@every_index
def test_exclusions_that_do_not_fit_the_queries_are_refused(kind: type[Index], how: IndexSettings) -> None:
    index, queries = kind.build(normal(1, M, D), how), normal(2, 3, D)
    with pytest.raises(ShapeError, match="got 2 for 3 queries"):
        index.search(queries, 5, exclude=[np.array([1])] * 2)
    with pytest.raises(ShapeError, match=r"exclude\[1\] .* got float64"):
        index.search(queries, 5, exclude=[np.array([1]), np.array([1.5]), np.array([1])])
    with pytest.raises(ShapeError, match=r"exclude\[0\] .* shape \(1, 1\)"):
        index.search(queries, 5, exclude=[np.array([[1]])] * 3)


# --- the parts that indexes share


@pytest.mark.parametrize("dim", [1, 2, 3, 13, 64, 67])
def test_the_canonical_score_is_the_exact_inner_product_rounded(dim: int) -> None:
    queries, vectors = normal(1, 5, dim), normal(2, 11, dim)
    rows = np.tile(np.arange(11), (5, 1))
    scores = contract.rescore(queries, vectors, rows)
    assert scores.tolist() == [[true_score(query, vector) for vector in vectors] for query in queries]


def test_the_canonical_score_has_the_same_bits_for_any_batch_and_place() -> None:
    queries, vectors = normal(1, B, 67), normal(2, M, 67)
    rows = np.random.default_rng(3).integers(-1, M, size=(B, 1009))
    together = contract.rescore(queries, vectors, rows)
    assert np.isneginf(together[rows == -1]).all() and np.isfinite(together[rows >= 0]).all()
    for number in range(B):
        one = slice(number, number + 1)
        assert contract.rescore(queries[one], vectors, rows[one]).tobytes() == together[one].tobytes()
        assert contract.rescore(queries[one], vectors, rows[one, 5:6]).tobytes() == together[one, 5:6].tobytes()


@pytest.mark.parametrize("dim", [1, 2, 13, 64, 131])
def test_scores_of_one_query_have_the_bits_of_the_sum_by_halving(dim: int) -> None:
    vectors, queries = normal(1, 1009, dim), normal(2, 5, dim)
    vectors[::3] *= 1000  # cancellation
    vectors[500:] *= np.float32(1e-30)
    rows = np.random.default_rng(3).permutation(1009)[:401]
    for query in queries:
        largest = float(np.linalg.norm(query)) * contract.check_vectors(vectors).max()
        expected = contract.rescore(query[None], vectors, rows[None])[0]
        assert contract.score_rows(query, vectors, rows, largest).tobytes() == expected.tobytes()


def test_scores_of_one_query_at_the_edge_of_rounding_are_added_up_by_halving() -> None:
    """1 + 2^-24 lies between two float32; what stands behind it, far below a float64's reach in some orders, decides."""
    tail = np.float32(2.0**-40)
    vectors = np.array([[1, 2.0**-24, tail, -tail], [1, 2.0**-24, tail, 0], [1, 2.0**-24, -tail, 0], [0, 0, 0, 0]], np.float32)
    scores = contract.score_rows(np.ones(4, np.float32), vectors, np.arange(4), 4.0)
    assert scores.tolist() == [1.0, 1 + 2.0**-23, 1.0, 0.0]  # the first is a tie: to the even one
    assert contract.score_rows(np.ones(4, np.float32), vectors, np.arange(4), 1e9).tolist() == scores.tolist()  # all are unsure


@given(
    st.lists(st.tuples(st.integers(0, 60), st.sampled_from([-1.0, 0.0, 0.5, 2.0])), max_size=30, unique_by=lambda entry: entry[0]),
    st.integers(1, 40),
)
def test_the_best_of_one_are_the_best_of_many(entries: list[tuple[int, float]], k: int) -> None:
    rows, scores = np.array([row for row, _ in entries], np.int64), np.array([score for _, score in entries], np.float32)
    one = contract.best_of_one(rows, scores, k)
    if not entries:
        assert (one[0] == -1).all() and np.isneginf(one[1]).all() and len(one[0]) == k
        return
    many = contract.best_first(rows[None], scores[None], k)
    assert same(one, (many[0][0], many[1][0]))


def test_exclusions_become_pairs_of_known_rows() -> None:
    query, row = contract.check_exclude([np.array([4, -1, 5, 0]), np.array([]), np.array([2, 2], np.uint8)], 3, 5)
    assert (query.tolist(), row.tolist()) == ([0, 0, 2, 2], [4, 0, 2, 2])
    assert contract.check_exclude(None, 3, 5)[0].shape == contract.check_exclude([], 0, 5)[1].shape == (0,)


def test_the_canonical_score_has_no_negative_zero() -> None:
    scores = contract.rescore(np.array([[-1.0]], np.float32), np.array([[0.0]], np.float32), np.array([[0]]))
    assert scores.tobytes() == np.zeros((1, 1), np.float32).tobytes()
    with pytest.raises(ShapeError, match=r"\(2, 1\) for 1 queries"):
        contract.rescore(np.zeros((1, 1), np.float32), np.zeros((1, 1), np.float32), np.zeros((2, 1), np.int64))


@given(
    st.lists(
        st.tuples(st.floats(width=32, allow_nan=False, allow_infinity=False).map(lambda x: x + 0.0), st.integers(0, 2**31 - 2)),
        min_size=1,
        max_size=30,
    )
)
def test_order_keys_sort_by_falling_score_then_row(entries: list[tuple[float, int]]) -> None:
    entries = [*entries, (-math.inf, -1)]
    scores, rows = np.array([score for score, _ in entries], np.float32), np.array([row for _, row in entries])
    keys = contract.order_keys(rows, scores)
    back_rows, back_scores = contract.from_order_keys(keys)
    assert back_rows.tolist() == rows.tolist() and back_scores.tobytes() == scores.tobytes()
    in_order = [entries[place] for place in np.argsort(keys, kind="stable")]
    assert in_order == sorted(entries, key=lambda entry: (-entry[0], entry[1]))


def test_best_first_orders_cuts_and_pads() -> None:
    rows = np.array([[5, -1, 2, 9], [-1, -1, -1, 3]])
    scores = np.array([[1.0, -math.inf, 1.0, 4.0], [-math.inf, -math.inf, -math.inf, -2.0]], np.float32)
    found_rows, found_scores = contract.best_first(rows, scores, 2)
    assert found_rows.tolist() == [[9, 2], [3, -1]]
    assert found_scores.tolist() == [[4.0, 1.0], [-2.0, -math.inf]]
    found_rows, found_scores = contract.best_first(rows, scores, 5)
    assert found_rows.tolist() == [[9, 2, 5, -1, -1], [3, -1, -1, -1, -1]]
    assert np.isneginf(found_scores[:, 4]).all()


def test_flags_that_blas_raises_are_no_warnings() -> None:
    """BLAS raises "invalid" now and then for lanes behind the rows, which no test can ask it to; infinity times 0 raises it for sure."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(contract.dot_products(np.array([[np.inf]], np.float32), np.zeros((1, 1), np.float32))).all()
