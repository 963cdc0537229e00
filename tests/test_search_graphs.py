"""The query tower of a bundle's graph against the tower that was trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from small_towers import DIM, FEATURES, QUERIES, questions, tower_of

from shortlist.bundle import QUERY_INPUTS, QUERY_OUTPUTS
from shortlist.export import export_graph
from shortlist.search_graphs import SearchingQuery
from shortlist.towers import TwoTower

KINDS: list[dict[str, Any]] = [
    {},
    {"history_pooling": "mean"},
    {"history_pooling": "attention"},
    {"linear_path": False},
    {"hidden": [DIM]},
    {"hidden": [17, 11, DIM]},
    {"cross_layers": 2, "cross_rank": 3},
    {"cross_layers": 1, "cross_rank": 2, "linear_path": False},
    {"item_bias": False},
]


def trained(model: TwoTower, asked: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """What training's own modules say, and the 1 that multiplies the items' biases."""
    seed, has_seed, history, present, x = asked
    pooled = model.query.pooling(seed, history, present)
    vector = model.query(seed, has_seed, pooled, (present.sum(dim=1, keepdim=True) > 0).float(), x)
    return torch.cat([vector, torch.ones(QUERIES, 1)], dim=1) if model.settings.item_bias else vector


@pytest.mark.parametrize("model", KINDS, ids=str)
@pytest.mark.parametrize("width", [0, FEATURES])
def test_the_graph_says_what_the_trained_tower_says(model: dict[str, Any], width: int) -> None:
    built, asked = tower_of(width, **model), questions(width)
    found, expected = SearchingQuery(built)(*asked), trained(built, asked)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_weights_of_places_that_float32_cannot_hold_side_by_side_are_compared_among_what_is_there() -> None:
    built, asked = tower_of(), questions()
    with torch.no_grad():
        built.query.pooling.position.copy_(torch.tensor([-120.0, -121.0, -119.0, 0.0, 1.0]))  # the newest count least
    torch.testing.assert_close(SearchingQuery(built)(*asked), trained(built, asked), atol=1e-6, rtol=0)


def test_the_published_graph_has_few_operations(tmp_path: Path) -> None:
    built, asked = tower_of(), questions()
    path = tmp_path / "tower.onnx"
    export_graph(SearchingQuery(built), asked, QUERY_INPUTS, QUERY_OUTPUTS, path)
    options = onnxruntime.SessionOptions()
    options.enable_profiling, options.profile_file_prefix = True, str(tmp_path / "profile")
    session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, dict(zip(QUERY_INPUTS, (value.numpy() for value in asked), strict=True)))
    np.testing.assert_allclose(found, trained(built, asked).detach().numpy(), atol=1e-6)
    profile = Path(session.end_profiling()).read_text(encoding="utf-8")
    assert 10 <= profile.count("_kernel_time") <= 18  # 35 where the graph is what training computes
