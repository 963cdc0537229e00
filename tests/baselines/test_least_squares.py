"""One side of iALS against the normal equations of every row, and against `implicit` where both solve the same problem."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as property_settings
from hypothesis import strategies as st
from implicit.cpu.als import least_squares
from scipy import sparse

from shortlist.baselines import least_squares as module
from shortlist.baselines.ials import item_vectors, train_ials
from shortlist.baselines.least_squares import LeastSquares

ROWS, COLUMNS, DIM = 31, 23, 7


def weights_of(seed: int, rows: int = ROWS, columns: int = COLUMNS, density: float = 0.3) -> sparse.csr_matrix:
    rng = np.random.default_rng(seed)
    matrix = np.where(rng.random((rows, columns)) < density, rng.random((rows, columns)) + 0.1, 0)
    matrix[0] = 0  # a row that says nothing
    matrix[1] = rng.random(columns) + 0.1  # one with more weights than dimensions
    return sparse.csr_matrix(matrix.astype(np.float32))


def dense(weights: np.ndarray, columns: np.ndarray, regularization: float, unobserved: float) -> np.ndarray:
    """The minimum of every row's objective, term by term: its gradient is 0 there."""
    found = np.zeros((len(weights), columns.shape[1]))
    for row, line in enumerate(weights):
        left = regularization * (line.sum() + unobserved * len(columns)) * np.eye(columns.shape[1])
        right = np.zeros(columns.shape[1])
        for weight, vector in zip(line, columns, strict=True):
            left += (weight + unobserved) * np.outer(vector, vector)
            right += weight * vector
        found[row] = np.linalg.solve(left, right)
    return found


def test_one_dimension_by_hand() -> None:
    # one column y = 2, weight 3, a = .5, l = .1: x = w y / (w y^2 + a y^2 + l (w + a)) = 6 / (12 + 2 + .35)
    solved = LeastSquares(0.1, 0.5).solve(sparse.csr_matrix(np.array([[3.0]], np.float32)), np.array([[2.0]], np.float32))
    assert solved[0, 0] == pytest.approx(6 / 14.35)


@pytest.mark.parametrize("entries_at_once", [1, 101, 1 << 21])
def test_every_row_is_the_solution_of_its_normal_equations(entries_at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ENTRIES_AT_ONCE", entries_at_once)  # one row at a time, a few, all that are alike
    weights, columns = weights_of(1), np.random.default_rng(2).standard_normal((COLUMNS, DIM)).astype(np.float32)
    solved = LeastSquares(0.03, 0.2).solve(weights, columns)
    assert solved == pytest.approx(dense(weights.toarray(), columns, 0.03, 0.2), abs=1e-4)
    assert not solved[0].any()


@property_settings(deadline=None, derandomize=True, max_examples=25)
@given(st.lists(st.integers(0, 17), min_size=1, max_size=19), st.integers(1, 5))
def test_rows_of_any_lengths_are_solved_alike(lengths: list[int], dim: int) -> None:
    rng = np.random.default_rng(len(lengths))
    matrix = np.zeros((len(lengths), 17), np.float32)
    for row, length in enumerate(lengths):
        matrix[row, rng.permutation(17)[:length]] = rng.random(length) + 0.1
    columns = rng.standard_normal((17, dim)).astype(np.float32)
    solved = LeastSquares(0.1, 0.3).solve(sparse.csr_matrix(matrix), columns)
    assert solved == pytest.approx(dense(matrix, columns, 0.1, 0.3), abs=1e-3)


def regular(askers: int, items: int, each: int) -> sparse.csr_matrix:
    """(askers, items) in which every asker chose `each` items, and every item was chosen equally often."""
    chosen = np.zeros((askers, items), np.float32)
    for place in range(askers * each):
        chosen[place // each, place % items] = 1
    assert len(set(chosen.sum(axis=0))) == len(set(chosen.sum(axis=1))) == 1
    return sparse.csr_matrix(chosen)


def test_implicit_comes_to_the_same_where_it_solves_the_same_problem() -> None:
    """Where all askers, and all items, have equally many choices, our regularisation (nu = 1) is one number a side, as `implicit`'s.

    implicit minimises  sum_chosen c (1 - s)^2 + sum_others s^2 + m |x|^2;  ours is, but for a constant,
    a [ sum_chosen c (t - s)^2 + sum_others s^2 + n |x|^2 ],  c = (1 + a) / a,  t = 1 / (1 + a),  n = l (N + a M) / a:
    the same problem for vectors divided by sqrt(t), with m = n / t.
    """
    askers, items, each, dim = 21, 15, 5, 4
    chosen, solver = regular(askers, items, each), LeastSquares(0.02, 0.3)
    a, own = solver.unobserved, chosen.sum() / items
    confidence, target = (1 + a) / a, 1 / (1 + a)
    of_askers = solver.regularization * (each + a * items) / a / target
    of_items = solver.regularization * (own + a * askers) / a / target
    start = np.random.default_rng(5).standard_normal((items, dim)).astype(np.float32)
    ours, theirs = start, start / np.sqrt(target)
    their_askers = np.zeros((askers, dim))
    for _ in range(5):
        our_askers = solver.solve(chosen, ours)
        ours = solver.solve(chosen.T.tocsr(), our_askers)
        least_squares(chosen * confidence, their_askers, theirs, of_askers)
        least_squares((chosen * confidence).T.tocsr(), theirs, their_askers, of_items)
        assert our_askers / np.sqrt(target) == pytest.approx(their_askers, abs=1e-4)
        assert ours / np.sqrt(target) == pytest.approx(theirs, abs=1e-4)
    assert np.abs(ours).max() > 0.1  # it learned something


def test_implicit_agrees_on_every_single_row_of_an_uneven_log() -> None:
    """A row's regularisation is one number for `implicit` too, if it is asked row by row."""
    weights, columns = weights_of(3), np.random.default_rng(4).standard_normal((COLUMNS, DIM)).astype(np.float32)
    weights.data[:] = 1
    solver = LeastSquares(0.05, 0.25)
    ours, a = solver.solve(weights, columns), solver.unobserved
    for row in range(1, ROWS):
        theirs, regularization = np.zeros((1, DIM)), solver.regularization * (weights[row].sum() + a * COLUMNS) / a
        least_squares(weights[row] * ((1 + a) / a), theirs, columns, regularization)
        assert ours[row] == pytest.approx(theirs[0] / (1 + a), abs=1e-4)  # targets of 1 instead of 1 / (1 + a)


def test_training_lowers_the_objective_and_finds_blocks() -> None:
    """Two groups of askers that choose from two groups of items: an asker's own group scores above the other."""
    rng = np.random.default_rng(6)
    own = (np.arange(61)[:, None] % 2) == (np.arange(41)[None, :] % 2)
    chosen = sparse.csr_matrix((own & (rng.random((61, 41)) < 0.4)).astype(np.float32))
    score = train_ials(chosen, regularization=0.02, unobserved=0.1, factors=2)
    scores = score(chosen)
    assert scores[own].min() > scores[~own].max()
    solver = LeastSquares(0.02, 0.1)
    vectors = item_vectors(chosen, 2, solver)
    askers = solver.solve(chosen, vectors)

    def objective(x: np.ndarray, y: np.ndarray) -> float:
        s, w = x @ y.T, chosen.toarray()
        ridge = (w.sum(1) + 0.1 * 41) @ (x**2).sum(1) + (w.sum(0) + 0.1 * 61) @ (y**2).sum(1)
        return float((w * (1 - s) ** 2).sum() + 0.1 * (s**2).sum() + 0.02 * ridge)

    best = objective(askers, vectors)
    for _ in range(7):
        moved = objective(askers + 0.05 * rng.standard_normal(askers.shape), vectors + 0.05 * rng.standard_normal(vectors.shape))
        assert moved > best
