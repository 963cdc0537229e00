"""What is the int8 index's own: its bounds, its codes, its file."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_index import needs, normal, same

from shortlist.errors import BundleError, ShapeError
from shortlist.index import contract, int8, refining
from shortlist.index.exact import ExactIndex, reached_by
from shortlist.index.int8 import Int8Index, quantised
from shortlist.sections import IndexSettings

pytestmark = needs("onnx")
HOW = IndexSettings(kind="int8")


def test_codes_by_hand() -> None:
    vectors = np.array([[127, -63.6, 0], [0, 0, 0], [-2.54, 1.27, 0.004]], np.float32)
    codes, scales, error = quantised(vectors)
    assert codes.tolist() == [[127, -64, 0], [0, 0, 0], [-127, 64, 0]]  # 1.27 / .02 = 63.5 -> 64 (the float is a little above)
    assert np.allclose(scales, [1, 0, 0.02])
    # row 0: .4 of |(127, -63.6)| = 142.03; row 2: |(0, 1.27 - 1.28, .004)| = .01077 of 2.8398
    assert error == pytest.approx(0.01077 / 2.8398, rel=2e-3)


@given(seed=st.integers(0, 10_000), dim=st.integers(1, 70), spread=st.floats(0, 4))
@settings(max_examples=60, deadline=None)
def test_every_score_lies_within_its_bounds(seed: int, dim: int, spread: float) -> None:
    random = np.random.default_rng(seed)
    vectors = (random.standard_normal((53, dim)) * np.exp(spread * random.standard_normal((53, dim)))).astype(np.float32)
    query = (random.standard_normal(dim) * np.exp(spread * random.standard_normal(dim))).astype(np.float32)
    index = Int8Index.build(vectors, HOW)
    upper, width = index._bounds(*index._first_pass(query, float(np.linalg.norm(query.astype(np.float64)))))
    scores = contract.rescore(query[None], vectors, np.arange(53)[None])[0].astype(np.float64)
    assert (scores <= upper).all() and (scores >= upper.astype(np.float64) - width).all()


def test_the_largest_codes_do_not_overflow_sixteen_bits() -> None:
    """All products at their extreme: 2 * 127 * 127 is what a processor without VNNI adds up in 16 bits."""
    vectors = np.stack([np.full(512, 1, np.float32), np.full(512, -1, np.float32)])
    index = Int8Index.build(vectors, HOW)
    assert np.allclose(index.estimates(np.ones(512, np.float32)), [512, -512], rtol=1e-5)
    assert np.allclose(index.estimates(np.full(512, -1, np.float32)), [-512, 512], rtol=1e-5)


@pytest.mark.parametrize("compiles", [True, False])
def test_few_rows_are_compared_by_their_vectors(monkeypatch: pytest.MonkeyPatch, compiles: bool) -> None:
    """The bounds do their work: of 20,011 rows a few hundred are left, and the answer is the exact index's."""
    vectors, queries = normal(1, 20_011, 61), normal(2, 7, 61)
    compared = []
    best = refining.Refiner.best

    def counting(refiner: refining.Refiner, query: np.ndarray, rows: np.ndarray, k: int, largest: float) -> tuple[np.ndarray, np.ndarray]:
        compared.append(len(rows))
        return best(refiner, query, rows, k, largest)

    monkeypatch.setattr(refining.Refiner, "best", counting)
    if not compiles:
        monkeypatch.setattr(refining, "_compiled", lambda: None)
    index = Int8Index.build(vectors, HOW)
    assert index.is_compiled == (compiles and has_compiler())
    assert same(index.search(queries, 100), ExactIndex.build(vectors, HOW).search(queries, 100))
    assert len(compared) == 7 and min(compared) >= 100 and max(compared) < 1500
    assert same(index.search(queries, 5_000), ExactIndex.build(vectors, HOW).search(queries, 5_000))  # more rows than are compiled for


@given(
    seed=st.integers(0, 10_000),
    count=st.sampled_from([1, 2, 7, 31, 33, 64, 997, 4001]),
    k=st.integers(1, 60),
    share=st.sampled_from([0.0, 0.01, 0.3]),
    left_out=st.sampled_from([0.0, 0.5, 0.97, 1.0]),
    ties=st.booleans(),
)
@settings(max_examples=120, deadline=None)
def test_rows_in_reach_are_all_that_may_be_among_the_best_and_few_more(
    seed: int, count: int, k: int, share: float, left_out: float, ties: bool
) -> None:
    """Against sorting: with the k-th largest lower bound every row below it is out; in groups, a few below it are not."""
    random = np.random.default_rng(seed)
    scaled, norms = random.standard_normal(count).astype(np.float32), np.exp(random.standard_normal(count)).astype(np.float32)
    if ties:
        scaled, norms = np.rint(scaled), np.ones_like(norms)
    scaled[random.random(count) < left_out] = -np.inf
    refiner = refining.Refiner(np.zeros((count, 3), np.float32))
    rows = refiner.in_reach(scaled, norms, 0.5, share, 1e-30, k)
    if rows is None:
        assert not has_compiler()
        return
    middle, half = 0.5 * scaled.astype(np.float64), share * norms.astype(np.float64)
    lower, upper = middle - half, middle + half
    least = np.sort(lower)[-k] if k <= count else -np.inf
    there = np.isfinite(scaled)
    must = np.flatnonzero(there & (upper >= least + 1e-5))
    assert set(must.tolist()) <= set(rows.tolist()) and there[rows].all()
    assert rows.tolist() == sorted(set(rows.tolist()))
    reached = reached_by(lower.astype(np.float32)[None], k)[0]
    assert (upper[rows] >= reached - 1e-5).all()


def has_compiler() -> bool:
    return shutil.which("gcc") is not None or shutil.which("cc") is not None


def test_a_corpus_beyond_what_one_graph_holds_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8, "CODES_LARGEST_BYTES", 20)
    with pytest.raises(ShapeError, match=r"at most 20 codes: got 21; use kind"):
        Int8Index.build(normal(1, 7, 3), HOW)


@pytest.mark.parametrize("name", ["int8.json", "int8.onnx"])
def test_damaged_files_are_refused_by_name(tmp_path: Path, name: str) -> None:
    vectors = normal(1, 101, 7)
    Int8Index.build(vectors, HOW).save(tmp_path)
    content = (tmp_path / name).read_bytes()
    for damaged in (b"", content[:50], content[:-1], content + b"x"):
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(BundleError, match=name):
            Int8Index.open(tmp_path, vectors)
    (tmp_path / name).unlink()
    with pytest.raises(BundleError, match=name):
        Int8Index.open(tmp_path, vectors)


@pytest.mark.parametrize(("field", "value"), [("error", -1.0), ("kind", "exact"), ("size", 100), ("codes", "0" * 32)])
def test_facts_that_do_not_fit_are_refused(tmp_path: Path, field: str, value: object) -> None:
    vectors = normal(1, 101, 7)
    Int8Index.build(vectors, HOW).save(tmp_path)
    facts = msgspec.json.decode((tmp_path / "int8.json").read_bytes())
    (tmp_path / "int8.json").write_bytes(msgspec.json.encode({**facts, field: value}))
    with pytest.raises(BundleError, match="publish again"):
        Int8Index.open(tmp_path, vectors)


def test_the_same_vectors_make_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        Int8Index.build(normal(1, 101, 7), HOW).save(tmp_path / name)
    assert (tmp_path / "one" / "int8.onnx").read_bytes() == (tmp_path / "two" / "int8.onnx").read_bytes()
