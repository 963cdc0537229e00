"""What is the exact index's own: blocks, its threshold, its error bound, its file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from shortlist.errors import BundleError
from shortlist.index import contract, exact
from shortlist.index.exact import ExactIndex
from shortlist.sections import IndexSettings


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def whole_ranking(queries: np.ndarray, vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Every canonical score, fully sorted."""
    every = np.tile(np.arange(len(vectors)), (len(queries), 1))
    scores = contract.rescore(queries, vectors, every)
    rows = np.lexsort((every, -scores), axis=1)[:, :k]
    return rows, np.take_along_axis(scores, rows, axis=1)


@pytest.mark.parametrize(("query_block", "entries"), [(1, 1), (3, 3 * 7), (5, 5 * 101), (64, 64 * 1009), (128, 1 << 22)])
@pytest.mark.parametrize("k", [1, 13, 1009])
def test_block_sizes_do_not_change_a_bit(monkeypatch: pytest.MonkeyPatch, query_block: int, entries: int, k: int) -> None:
    vectors, queries = normal(1, 1009, 29), normal(2, 7, 29)
    vectors[500:] = vectors[:509]  # ties across blocks
    exclude = [np.arange(number * 7, 211) for number in range(7)]
    expected = ExactIndex.build(vectors, IndexSettings()).search(queries, k, exclude=exclude)
    monkeypatch.setattr(exact, "QUERY_BLOCK", query_block)
    monkeypatch.setattr(exact, "BLOCK_ENTRIES", entries)
    rows, scores = ExactIndex.build(vectors, IndexSettings()).search(queries, k, exclude=exclude)
    assert rows.tobytes() == expected[0].tobytes() and scores.tobytes() == expected[1].tobytes()


@pytest.mark.parametrize("k", [1, 10, 100, 1000])
def test_a_large_corpus_agrees_with_ranking_all_of_it(k: int) -> None:
    vectors, queries = normal(1, 20_011, 31), normal(2, 11, 31)
    vectors[::97] *= 50  # a few long rows widen the error bound
    rows, scores = ExactIndex.build(vectors, IndexSettings()).search(queries, k)
    true_rows, true_scores = whole_ranking(queries, vectors, k)
    assert (rows == true_rows).all() and (scores == true_scores).all()


@pytest.mark.parametrize("entries", [1 << 22, 11 * 53])
def test_a_tie_that_matrix_products_cannot_see_is_decided_by_the_canonical_score(monkeypatch: pytest.MonkeyPatch, entries: int) -> None:
    """Rows that differ in last bits: their matrix products come in another order, at every cut-off and across blocks."""
    monkeypatch.setattr(exact, "BLOCK_ENTRIES", entries)
    vectors, queries = np.tile(normal(1, 1, 67), (211, 1)), normal(2, 11, 67)
    vectors += normal(3, 211, 67) * np.float32(3e-8)
    product = np.argsort(-(queries @ vectors.T), axis=1, kind="stable")
    index = ExactIndex.build(vectors, IndexSettings())
    for k in range(1, 211, 10):
        rows, scores = index.search(queries, k)
        true_rows, true_scores = whole_ranking(queries, vectors, k)
        assert (rows == true_rows).all() and (scores == true_scores).all()
        assert (rows != product[:, :k]).any()  # the test would see a search that trusts the product


def test_the_threshold_isreached_by_k_scores_of_every_line() -> None:
    scores = normal(1, 7, 5003)
    for k in (1, 2, 53, 600, 2600, 5003):
        reached = exact.reached_by(scores, k)
        assert ((scores >= reached[:, None]).sum(axis=1) >= k).all()
        assert (reached <= np.sort(scores, axis=1)[:, -k]).all()
    assert np.isneginf(exact.reached_by(scores, 5004)).all()


def test_the_threshold_lets_few_entries_through() -> None:
    scores = normal(1, 7, 100_003)
    passed = (scores >= exact.reached_by(scores, 100)[:, None]).sum(axis=1)
    assert (passed < 130).all()  # 800 groups: about -800 ln(1 - 1/8) = 107


@pytest.mark.parametrize("dim", [1, 7, 64, 509])
def test_the_error_bound_holds_for_matrix_products_of_any_shape(dim: int) -> None:
    vectors, queries = normal(1, 307, dim), normal(2, 41, dim)
    vectors[:, : dim // 2] *= 1000  # cancellation
    norms = contract.checked_norms(queries, "queries") * contract.check_vectors(vectors).max()
    bound = exact.largest_error(norms, dim)
    canonical = contract.rescore(queries, vectors, np.tile(np.arange(307), (41, 1)))
    alone = np.concatenate([queries[line : line + 1] @ vectors.T for line in range(41)])
    for product in (queries @ vectors.T, alone):
        assert (np.abs(product.astype(np.float64) - canonical) <= bound[:, None]).all()


def test_the_vectors_cannot_be_written_through_the_index() -> None:
    vectors = normal(1, 5, 3)
    index = ExactIndex.build(vectors, IndexSettings())
    assert index.is_exact and vectors.flags.writeable and not index.vectors.flags.writeable
    assert np.shares_memory(index.vectors, vectors)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"kind": "exact"}', b'{"kind": "scann", "size": 5, "dim": 3}', b"\xff" * 9000, b"[" * 4000]
)
def test_a_damaged_facts_file_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "exact.json").write_bytes(content)
    with pytest.raises(BundleError, match=r"exact\.json must"):
        ExactIndex.open(tmp_path, normal(1, 5, 3))
