"""Tuning to a target on held-out queries, the proof, and what `auto` chooses."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from small_index import needs, same

from shortlist.errors import BundleError
from shortlist.index import kinds, tuning
from shortlist.index.contract import Float32s, Rows
from shortlist.index.exact import ExactIndex
from shortlist.index.kinds import build_index, chosen_kind, open_index
from shortlist.index.proposing import Effort, ProposingIndex
from shortlist.index.scann import ScannIndex
from shortlist.sections import IndexSettings

SETTINGS = IndexSettings(target_k=10, leaves=20)


class ByPartition(ProposingIndex):
    """A library whose recall is known: row r lies in partition r % leaves; it proposes rows of the likeliest partitions by a code
    that is the score with noise."""

    kind = "scann"
    folder = "planted"
    noise = 0.3

    def propose(self, query: Float32s, effort: Effort, searched: int) -> Rows:
        scores = self._vectors @ query
        order = np.argsort(-np.array([scores[part :: self.leaves].max() for part in range(self.leaves)]))[:searched]
        rows = np.flatnonzero(np.isin(np.arange(self.size) % self.leaves, order))
        noise = np.random.default_rng(int(abs(scores[0]) * 1e6)).normal(0, self.noise, self.size)
        named = rows[np.argsort(-(scores[rows] + noise[rows]))][: effort.rescored]
        return named if effort.compared is None else named[np.argsort(-self._finer(scores)[named])][: effort.compared]

    def _finer(self, scores: Float32s) -> Float32s:
        """What its finer codes, where it has some, make of the scores."""
        raise NotImplementedError

    def _build_library(self, settings: IndexSettings) -> None:
        pass

    def _save_library(self, folder: Path) -> None:
        pass

    def _open_library(self, folder: Path) -> None:
        pass


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def test_efforts_reach_the_target_and_a_cheaper_one_would_not() -> None:
    index = ByPartition.build(normal(1, 499, 7), SETTINGS)
    queries = normal(2, 300, 7)
    for target in (0.6, 0.9):
        tuned, proof = tuning.tuned(index, queries, msgspec.structs.replace(SETTINGS, target_recall=target))
        assert (proof.queries, proof.tuned_on) == (150, 150)
        assert proof.recall == tuning.mean_recall(tuned, tuning.split(queries, SETTINGS)[1], 10)
        assert proof.recall >= target - tuning.TOLERANCE
        best = tuned.efforts[0]
        assert best.compared is None and (best.searched == 20 or tuned.search_ns(best) < tuned.search_ns(Effort(10, 20, 100)))
        weaker = Effort(best.depth, max(1, best.searched // 2), best.rescored)
        assert tuning.mean_recall(tuned.with_efforts([weaker]), queries, 10) < target


def test_deeper_results_get_more_effort() -> None:
    tuned, _ = tuning.tuned(ByPartition.build(normal(1, 499, 7), SETTINGS), normal(2, 100, 7), SETTINGS)
    assert [effort.depth for effort in tuned.efforts] == [10, 15, 25, 50, 140]
    searched, rescored = zip(*((effort.searched, effort.rescored) for effort in tuned.efforts), strict=True)
    assert list(searched) == sorted(searched) and list(rescored) == sorted(rescored)


class WithFinerCodes(ByPartition):
    """The same library with coarser codes, and finer ones that are off by a hundredth."""

    has_finer_codes = True
    noise = 2.0
    grid = 0.01

    def _finer(self, scores: Float32s) -> Float32s:
        return np.round(scores / self.grid)


class WithUselessCodes(WithFinerCodes):
    """Its finer codes are so coarse that two thirds of all rows have the same one."""

    grid = 4.0


def test_finer_codes_leave_few_rows_to_compare_unless_they_are_too_coarse() -> None:
    vectors, queries = normal(1, 499, 101) / np.float32(5), normal(2, 300, 101)  # a row is dear to compare, its code is not
    settings = msgspec.structs.replace(SETTINGS, target_recall=0.9)
    finer, proof = tuning.tuned(WithFinerCodes.build(vectors, SETTINGS), queries, settings)
    assert all(effort.compared in (None, math.ceil(1.3 * effort.depth)) for effort in finer.efforts)
    assert finer.efforts[0].compared == 13 < finer.efforts[0].rescored and proof.recall >= 0.895
    coarse, proof = tuning.tuned(WithUselessCodes.build(vectors, SETTINGS), queries, settings)
    assert coarse.efforts[0].compared is None and proof.recall >= 0.895


def test_the_tuning_halves_share_no_query_and_the_seed_decides() -> None:
    queries = normal(2, 301, 7)
    left, right = tuning.split(queries, SETTINGS)
    assert len(left) == 151 and len(right) == 150
    together = np.concatenate([left, right])
    assert {tuple(row) for row in together.tolist()} == {tuple(row) for row in queries.tolist()}
    assert same(tuning.split(queries, SETTINGS), (left, right))


def test_a_recall_below_the_target_is_refused_with_its_numbers() -> None:
    index = ByPartition.build(normal(1, 997, 7), SETTINGS)
    fixed = msgspec.structs.replace(SETTINGS, searched=1, rescored=10, target_recall=0.9)
    with pytest.raises(BundleError, match=r"recall@10 of the scann index must be at least 0\.9 - 0\.005 .* got 0\.\d{4} on 100 held-out"):
        tuning.tuned(index.with_efforts([Effort(10, 1, 10)]), normal(2, 200, 7), fixed)


def test_a_proof_that_falls_short_makes_the_efforts_harder_and_three_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    index, queries = ByPartition.build(normal(1, 499, 7), SETTINGS), normal(2, 300, 7)
    targets: list[float] = []
    efforts = tuning._efforts

    def watched(index: ProposingIndex, queries: Float32s, settings: IndexSettings) -> list[Effort]:
        targets.append(settings.target_recall)
        return efforts(index, queries, settings)

    monkeypatch.setattr(tuning, "_efforts", watched)
    proofs = iter([0.55, 0.58, 0.61])
    monkeypatch.setattr(tuning, "mean_recall", lambda *_: next(proofs))
    _, proof = tuning.tuned(index, queries, msgspec.structs.replace(SETTINGS, target_recall=0.6))
    assert (proof.recall, proof.attempts) == (0.61, 3)
    assert targets == pytest.approx([0.6, 0.65, 0.67])  # each raised by what was missing: .05, then .02
    proofs = iter([0.5, 0.5, 0.5, 0.9])
    with pytest.raises(BundleError, match=r"got 0\.5000 on 150 held-out"):
        tuning.tuned(index, queries, msgspec.structs.replace(SETTINGS, target_recall=0.6))
    assert next(proofs) == 0.9


def test_too_few_queries_prove_nothing() -> None:
    with pytest.raises(BundleError, match="at least 100 held-out queries: got 99"):
        tuning.tuned(ByPartition.build(normal(1, 997, 7), SETTINGS), normal(2, 99, 7), SETTINGS)


def test_recall_by_hand() -> None:
    index = ByPartition.build(np.eye(64, dtype=np.float32)[:, :64] * np.arange(64, 0, -1, dtype=np.float32)[:, None], SETTINGS)
    queries = np.ones((3, 64), np.float32)

    class Half(ByPartition):
        def propose(self, query: Float32s, effort: Effort, searched: int) -> Rows:
            return np.array([0, 1, 2, 3, 4, 30, 31, 32, 33, 34])  # the first five of the best ten rows 0..9

    half = Half.build(index.exact.vectors, SETTINGS)
    assert tuning.mean_recall(half, queries, 10) == 0.5


@needs("scann")
def test_an_index_is_tuned_to_the_queries_that_are_asked() -> None:
    """Queries have a last coordinate of 1 for the bias; item vectors, asked as queries, would be found with less effort."""
    random = np.random.default_rng(1)
    vectors = np.concatenate([normal(1, 4001, 12), random.normal(0, 3, (4001, 1)).astype(np.float32)], axis=1)
    queries = np.concatenate([normal(2, 600, 12), np.ones((600, 1), np.float32)], axis=1)
    settings = IndexSettings(kind="scann", target_k=10, target_recall=0.9, build_threads=1)
    tuned, proof = tuning.tuned(ScannIndex.build(vectors, settings), queries, settings)
    assert proof.recall >= 0.895
    assert tuning.mean_recall(tuned, normal_queries := queries[:200], 10) >= 0.88 and normal_queries.shape[1] == 13


@needs("scann")
@needs("faiss")
@pytest.mark.parametrize("kind", ["scann", "faiss"])
def test_building_tells_what_was_built_and_opening_finds_it(kind: Any, tmp_path: Path) -> None:
    vectors, queries = normal(1, 3001, 12), normal(2, 250, 12)
    index, facts = build_index(vectors, IndexSettings(kind=kind, target_k=10, build_threads=1), queries)
    assert (facts["kind"], facts["chosen"], facts["exact"], facts["queries"], facts["tuned_on"]) == (kind, False, False, 125, 125)
    assert facts["recall"] >= facts["target_recall"] - 0.005 and facts["target_k"] == 10 and facts["leaves"] == 108
    assert [effort["depth"] for effort in facts["efforts"]] == [10, 15, 25, 50, 140]
    index.save(tmp_path)
    assert same(open_index(kind, tmp_path, vectors).search(queries, 10), index.search(queries, 10))
    again, other = build_index(vectors, IndexSettings(kind=kind, target_k=10, build_threads=1), queries)
    assert other == facts and same(again.search(queries, 40), index.search(queries, 40))


def test_exact_kinds_need_no_queries_and_claim_no_measurement() -> None:
    index, facts = build_index(normal(1, 101, 5), IndexSettings(), normal(2, 0, 5))
    assert isinstance(index, ExactIndex) and facts == {"kind": "exact", "chosen": True, "exact": True}


@pytest.mark.parametrize(
    ("size", "dim", "queries", "installed", "kind"),
    [
        (1000, 64, 1000, {"scann", "faiss", "onnx"}, "exact"),
        (16_384, 64, 1000, {"scann", "faiss", "onnx"}, "exact"),  # 2^20
        (16_385, 64, 1000, {"scann", "faiss", "onnx"}, "int8"),
        (16_385, 64, 1000, {"scann", "faiss"}, "exact"),
        (200_000, 64, 1000, {"scann", "faiss", "onnx"}, "scann"),
        (200_000, 64, 1000, {"faiss", "onnx"}, "faiss"),
        (200_000, 64, 1000, {"onnx"}, "int8"),
        (200_000, 64, 1000, set(), "exact"),
        (200_000, 64, 99, {"scann", "faiss", "onnx"}, "int8"),
    ],
)
def test_auto_chooses_by_size_and_by_what_is_there(
    monkeypatch: pytest.MonkeyPatch, size: int, dim: int, queries: int, installed: set[str], kind: str
) -> None:
    monkeypatch.setattr(kinds, "is_installed", lambda engine: engine in installed)
    assert chosen_kind(size, dim, queries) == kind


def test_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"known here \(exact, int8, scann, faiss\): got 'hnsw'"):
        open_index("hnsw", tmp_path, normal(1, 5, 3))
