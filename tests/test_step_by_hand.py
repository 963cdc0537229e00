"""Twenty steps of training against a second, slow implementation in float64: the same losses, whatever makes the fast one fast.

The slow one knows nothing of tiles, merged columns, gathered rows, transposed bags or fused optimisers. It looks the whole tables up,
lets autograd differentiate the formulae of losses.py, and runs Adagrad on full dense gradients: a row without a gradient stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_passes import each_passes  # noqa: F401  # every test runs with both
from small_project import small_dataset
from torch.nn import functional

from shortlist.batches import Batch
from shortlist.dataset import Dataset
from shortlist.features.arrays import Bag, Dense, FeatureArray
from shortlist.learner import Learner
from shortlist.losses import Candidates, sampled_softmax_loss
from shortlist.sections import Config

Sections = Mapping[str, Mapping[str, Any]]
STEPS = 20
PAPER: Sections = {"model": {"linear_path": False, "item_bias": False, "id_dropout": 0.0, "embedding_dim": 8, "hidden": [19, 11]}}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


class SlowStep:
    """The paper's towers over whole tables, in float64, from the same start as a learner."""

    def __init__(self, learner: Learner, config: Config) -> None:
        self.config, self.names = config, {}
        self.weights = {name: value.detach().clone().double().requires_grad_() for name, value in learner.weights().items()}
        self.sums = {name: torch.full_like(value, config.train.adagrad_start) for name, value in self.weights.items()}

    def pieces(self, columns: Mapping[str, FeatureArray], table_rows: Mapping[str, np.ndarray], side: str) -> list[torch.Tensor]:
        """The looked-up features, each (n, width), by loops over bags."""
        found = []
        for name, column in columns.items():
            if isinstance(column, Dense):
                found.append(torch.from_numpy(column.values).double())
                continue
            table = self.weights[f"table/{side}/{name}"]
            rows = torch.from_numpy(table_rows[name][column.values])
            if isinstance(column, Bag):
                weighted = table[rows] * torch.from_numpy(column.weights).double()[:, None]
                ends = zip(column.offsets[:-1], column.offsets[1:], strict=True)
                found.append(torch.stack([weighted[start:end].sum(dim=0) for start, end in ends]))
            else:
                found.append(table[rows])
        return found

    def mlp(self, x: torch.Tensor, tower: str) -> torch.Tensor:
        part = {name.removeprefix(f"model/{tower}.mlp."): value for name, value in self.weights.items() if f"/{tower}.mlp." in name}
        hidden = functional.relu(x @ part["0.weight"].T + part["0.bias"])
        return functional.normalize(hidden @ part["2.weight"].T + part["2.bias"], dim=1)

    def loss(self, batch: Batch) -> torch.Tensor:
        x = torch.cat(self.pieces(batch.items.columns, batch.items.table_rows, "item"), dim=1)  # (n, width)
        embedding = x @ self.weights["model/item.embedding.weight"].T
        vectors = self.mlp(x, "item")
        seed, history = torch.from_numpy(batch.seed), torch.from_numpy(batch.history)
        has_seed, present = (seed >= 0).double()[:, None], history >= 0
        pooled = []
        for row, here in zip(history, present, strict=True):
            scores = self.weights["model/query.pooling.position"][: len(row)][here]
            pooled.append(torch.softmax(scores, dim=0) @ embedding[row[here]])  # zeros where nothing is present
        users = self.pieces(batch.users.columns, batch.users.table_rows, "user")
        context = self.pieces(batch.context.columns, batch.context.table_rows, "context")
        has_history = present.any(dim=1).double()[:, None]
        looked_at = embedding[seed.clamp_min(0)] * has_seed
        queries = self.mlp(torch.cat([looked_at, torch.stack(pooled), has_seed, has_history, *users, *context], dim=1), "query")
        return sampled_softmax_loss(
            "expected_count",
            queries @ vectors[torch.from_numpy(batch.columns)].T,
            Candidates(torch.from_numpy(batch.column_item_row), torch.from_numpy(batch.log_n).double()),
            temperature=self.config.model.temperature,
            weight=torch.from_numpy(batch.weight).double(),
        )

    def learn(self, batch: Batch) -> float:
        loss = self.loss(batch)
        for value in self.weights.values():
            value.grad = None
        loss.backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for name, value in self.weights.items():
                if value.grad is not None:
                    self.sums[name] += value.grad**2
                    value -= self.config.train.learning_rate * value.grad / self.sums[name].sqrt()
        return float(loss.detach())


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, each_passes: str) -> tuple[Dataset, Config]:  # noqa: F811
    return small_dataset(tmp_path_factory.mktemp("by_hand"), {**PAPER, "train": {"passes": each_passes}})


def test_twenty_steps_have_the_losses_and_weights_of_a_slow_float64_implementation(built: tuple[Dataset, Config]) -> None:
    dataset, config = built
    learner = Learner(dataset, dataset.train, config)
    slow = SlowStep(learner, config)
    for step in range(STEPS):
        batch = learner.maker.make(step)
        assert learner.learn(batch) == pytest.approx(slow.learn(batch), rel=1e-4), f"step {step}"
    for name, value in learner.weights().items():
        torch.testing.assert_close(value.double(), slow.weights[name].detach(), rtol=1e-3, atol=1e-3, msg=name)


def test_bfloat16_products_stray_from_it_by_less_than_a_hundredth(tmp_path: Path, each_passes: str) -> None:  # noqa: F811
    dataset, config = small_dataset(tmp_path, {**PAPER, "train": {"matmul": "bfloat16", "passes": each_passes}})
    learner = Learner(dataset, dataset.train, config)
    slow = SlowStep(learner, config)
    found, right = zip(*((learner.learn(batch), slow.learn(batch)) for batch in map(learner.maker.make, range(STEPS))), strict=True)
    np.testing.assert_allclose(found, right, rtol=0.02)
    assert abs(np.mean(found) / np.mean(right) - 1) < 0.01
