"""benchmarks/exact_evaluation.py measures what it says: the same search, the same answers, three times that can be compared."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from shortlist.evaluate import rank_positives
from shortlist.index.exact import ExactIndex
from shortlist.sections import EvaluateSettings, IndexSettings


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    import exact_evaluation

    return exact_evaluation


def test_every_query_is_ranked_by_its_own_vector(benchmark: ModuleType) -> None:
    rng = np.random.default_rng(1)
    items, queries = rng.standard_normal((101, 7), dtype=np.float32), rng.standard_normal((13, 7), dtype=np.float32)
    examples = benchmark.examples_of(13, 101, rng)
    retriever = benchmark.Searched(ExactIndex.build(items, IndexSettings()), queries)
    ranked = rank_positives(retriever, examples, 101, EvaluateSettings(ks=(101,)))
    scores = queries @ items.T
    own = scores[np.arange(13), examples.item_row]
    assert ranked.rank.tolist() == (scores >= own[:, None]).sum(axis=1).tolist()


def test_the_result_has_every_round_and_is_json(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "run_record", lambda: {"commit": "none", "date": "today", "machine": {}})
    result = benchmark.measured(31, 1009, 7, rounds=3)
    assert json.loads(json.dumps(result))["items"] == 1009
    assert {name: len(times) for name, times in result["seconds"].items()} == {"product": 3, "search": 3, "evaluation": 3}
    assert result["ratio_to_product"]["product"] == 1.0 and min(result["ratio_to_product"].values()) > 0
    benchmark.print_table(result)
