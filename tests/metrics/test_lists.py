"""What lists show, by hand and against slow versions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import sparse
from sklearn.metrics.pairwise import cosine_similarity

from shortlist.errors import ShapeError
from shortlist.metrics import lists as lists_module
from shortlist.metrics.lists import coverage, gini, intra_list_similarity, novelty


def test_coverage_is_the_share_of_the_corpus_that_is_shown() -> None:
    rows = np.array([[0, 1, 2], [1, 0, 4], [1, -1, -1]])
    assert coverage(rows, 1, 5) == 2 / 5  # 0, 1
    assert coverage(rows, 2, 5) == 2 / 5  # 0, 1
    assert coverage(rows, 3, 5) == 4 / 5  # 0, 1, 2, 4


def test_gini_by_hand() -> None:
    # exposures 0, 0, 1, 3 -> sum (2i - 5) x = (6 - 5) * 1 + (8 - 5) * 3 = 10; M * sum = 16
    assert gini(np.array([[1], [1], [1], [3]]), 1, 4) == 10 / 16
    assert gini(np.array([[0, 1], [2, 3]]), 2, 4) == 0.0
    assert gini(np.array([[2], [2]]), 1, 5) == pytest.approx(4 / 5)


def test_gini_agrees_with_the_mean_difference_of_all_pairs() -> None:
    rows = np.random.default_rng(1).integers(7, size=(13, 3))
    x = np.bincount(rows.ravel(), minlength=11)
    pairs = sum(abs(a - b) for a, b in itertools.product(x.tolist(), repeat=2))
    assert gini(rows, 3, 11) == pytest.approx(pairs / (2 * 11 * 11 * x.mean()))


def test_lists_that_cannot_answer_are_refused() -> None:
    rows = np.array([[0, 1]])
    with pytest.raises(ValueError, match="got 3 for 2"):
        coverage(rows, 3, 5)
    with pytest.raises(ValueError, match=r"-1\.\.0"):
        coverage(rows, 2, 1)
    with pytest.raises(ShapeError, match=r"\(0, 2\)"):
        coverage(rows[:0], 1, 5)
    with pytest.raises(ValueError, match="2 empty lists"):
        gini(np.full((2, 3), -1), 2, 5)


def test_novelty_by_hand() -> None:
    share = np.array([1 / 2, 1 / 4, 1 / 8, 1 / 8])  # 1, 2, 3 and 3 bits
    rows = np.array([[0, 1, 2], [3, 2, 0], [2, -1, -1]])
    assert novelty(rows, 2, share).tolist() == [1.5, 3.0, 3.0]
    assert novelty(rows, 3, share).tolist() == pytest.approx([2.0, 7 / 3, 3.0])


def test_novelty_of_a_uniform_corpus_is_its_entropy() -> None:
    rows = np.random.default_rng(0).integers(16, size=(7, 5))
    assert novelty(rows, 5, np.full(16, 1 / 16)).tolist() == pytest.approx([4.0] * 7)


def test_novelty_without_a_share_or_a_list_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shares must be \(M,\) in \(0, 1\]: got others; smooth the counts"):
        novelty(np.array([[0]]), 1, np.array([1.0, 0.0]))
    with pytest.raises(ValueError, match="needs a row in every list: got none in query 1"):
        novelty(np.array([[0], [-1]]), 1, np.array([0.5, 0.5]))


def test_similarity_within_a_list_by_hand() -> None:
    vectors = np.array([[1, 0], [0, 2], [3, 0], [-5, 0]], np.float32)
    rows = np.array([[0, 1, 2], [0, 2, 3], [3, 0, -1]])
    # pairs of 0 1 2: 0, 1, 0 -> 1/3; of 0 2 3: 1, -1, -1 -> -1/3; of 3 0: -1
    assert intra_list_similarity(rows, 3, vectors).tolist() == pytest.approx([1 / 3, -1 / 3, -1])
    assert intra_list_similarity(rows, 2, vectors).tolist() == pytest.approx([0, 1, -1])


def test_similarity_agrees_with_looking_at_every_pair() -> None:
    random = np.random.default_rng(5)
    vectors = random.standard_normal((29, 7)).astype(np.float32)
    rows = np.stack([random.permutation(29)[:11] for _ in range(13)])
    rows[3, 5:] = -1
    found = intra_list_similarity(rows, 11, vectors)
    assert intra_list_similarity(rows, 11, sparse.csr_matrix(vectors)) == pytest.approx(found, abs=1e-6)
    for line, similarity in zip(rows, found, strict=True):
        cosines = cosine_similarity(vectors[line[line >= 0]].astype(np.float64))
        assert similarity == pytest.approx(cosines[np.triu_indices(len(cosines), 1)].mean())


def test_similarity_does_not_depend_on_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(6)
    vectors, rows = random.standard_normal((17, 5)), np.stack([random.permutation(17)[:3] for _ in range(23)])
    whole = intra_list_similarity(rows, 3, vectors)
    monkeypatch.setattr(lists_module, "_ENTRIES_AT_ONCE", 31)
    np.testing.assert_allclose(intra_list_similarity(rows, 3, vectors), whole, rtol=1e-12)
    np.testing.assert_allclose(intra_list_similarity(rows, 3, sparse.csr_matrix(vectors)), whole, rtol=1e-12)


def test_lists_without_a_pair_or_a_direction_are_refused() -> None:
    vectors = np.array([[1.0, 0], [0, 0]])
    with pytest.raises(ValueError, match="two rows or more in every list: got fewer in query 1"):
        intra_list_similarity(np.array([[0, 1], [0, -1]]), 2, vectors)
    with pytest.raises(ValueError, match="vectors that are not 0: got one in query 0"):
        intra_list_similarity(np.array([[0, 1]]), 2, vectors)
