"""The query tower of a server, whose inputs stay in place from one query to the next."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from small_towers import LAST, QUERIES, questions, tower_of

from shortlist.bundle import QUERY_INPUTS, QUERY_OUTPUTS, ROWS_AXIS
from shortlist.export import export_graph
from shortlist.search_graphs import SearchingQuery
from shortlist.serve.tower import QueryTower


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> onnxruntime.InferenceSession:
    path: Path = tmp_path_factory.mktemp("graph") / "tower.onnx"
    export_graph(SearchingQuery(tower_of()), questions(), QUERY_INPUTS, QUERY_OUTPUTS, path)
    options = onnxruntime.SessionOptions()
    options.add_free_dimension_override_by_name(ROWS_AXIS, 1)
    return onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])


def test_a_query_leaves_nothing_for_the_next_one(session: onnxruntime.InferenceSession) -> None:
    seeds, has_seed, histories, present, features = (value.numpy() for value in questions())
    lengths = present.sum(axis=1).astype(int)
    used = QueryTower(session)
    pairs = [(first, second) for first in range(QUERIES) for second in range(QUERIES)]  # longer, shorter and equal histories follow
    assert {*lengths.tolist()} == {*range(LAST + 1)}

    def ask(tower: QueryTower, row: int) -> np.ndarray:
        return tower.vector(seeds[row] if has_seed[row, 0] else None, histories[row, : lengths[row]], [features[row]])

    alone = [ask(QueryTower(session), row) for row in range(QUERIES)]
    for first, second in pairs:
        ask(used, first)
        np.testing.assert_array_equal(ask(used, second), alone[second])
