"""What a step's facts say of vectors whose state is known, and that every warning names its cure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from small_project import small_dataset

from shortlist.batches import Batch, Mine, Mined
from shortlist.config import config_from_tree, config_tree
from shortlist.dataset import Dataset
from shortlist.diagnostics import effective_rank, lowest_rank, mean_cosine, step_facts, unknown_share, warnings_of
from shortlist.learner import Learner
from shortlist.queries import Queries
from shortlist.sections import Config
from shortlist.towers import EncodedItems
from shortlist.train import Trainer

Sections = Mapping[str, Mapping[str, Any]]
Built = tuple[Dataset, Config]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return small_dataset(
        tmp_path_factory.mktemp("diagnostics"), {"negatives": {"index_from": "corpus"}}
    )  # shares by hand are over all items


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def config_of(config: Config, sections: Sections) -> Config:
    tree = config_tree(config)
    return config_from_tree({**tree, **{name: {**tree.get(name, {}), **values} for name, values in sections.items()}})


def after_a_step(built: Built, sections: Sections | None = None, *, steps: int = 1, mine: Mine | None = None) -> tuple[Learner, Batch]:
    """A learner that has taken so many steps, and the batch of the last."""
    learner = Learner(built[0], built[0].train, config_of(built[1], sections or {}), mine=mine)
    learner.begin()
    for step in range(steps):
        batch = learner.maker.make(step)
        learner.learn(batch)
    return learner, batch


def with_vectors(learner: Learner, vector: torch.Tensor, embedding: torch.Tensor | None = None) -> None:
    """Puts other item vectors in the place of those of the last step."""
    assert learner.scored is not None
    items = learner.scored.items
    learner.scored = replace(learner.scored, items=EncodedItems(items.embedding if embedding is None else embedding, vector, items.bias))


def numbers(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


# --- the geometry of vectors


def test_the_mean_cosine_of_different_rows_by_hand() -> None:
    # the pairs of (1, 0), (0, 2), (-3, 0): cosines 0, 0 and -1
    assert mean_cosine(torch.tensor([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]])) == pytest.approx(-1 / 3)


def test_the_mean_cosine_equals_a_slow_mean_over_pairs() -> None:
    vectors = numbers(11, 3)
    unit = torch.nn.functional.normalize(vectors)
    pairs = [float(unit[i] @ unit[j]) for i in range(11) for j in range(11) if i != j]
    assert mean_cosine(vectors) == pytest.approx(float(np.mean(pairs)), abs=1e-6)


def test_vectors_on_one_ray_have_mean_cosine_and_rank_one() -> None:
    vectors = torch.arange(1.0, 8.0)[:, None] * torch.tensor([[1.0, -2.0, 3.0]])
    assert mean_cosine(vectors) == pytest.approx(1, abs=1e-5)
    assert effective_rank(vectors) == pytest.approx(1, abs=1e-4)


def test_one_vector_alone_and_zero_vectors_are_numbers() -> None:
    assert mean_cosine(numbers(1, 3)) == 0.0
    assert math.isfinite(mean_cosine(torch.zeros(5, 3)))
    assert math.isfinite(effective_rank(torch.zeros(5, 3)))


def test_the_effective_rank_by_hand() -> None:
    # squared singular values 3 and 1, shares 3/4 and 1/4: exp(-(3/4 ln 3/4 + 1/4 ln 1/4)) = 1.7548
    vectors = torch.tensor([[math.sqrt(3), 0.0, 0.0], [0.0, 1.0, 0.0]])
    assert effective_rank(vectors) == pytest.approx(1.75477, abs=1e-4)
    assert effective_rank(torch.eye(7)) == pytest.approx(7, abs=1e-3)


# --- the facts of a step


def mined_at_random(queries: Queries, rng: np.random.Generator) -> Mined:
    return Mined(rng.integers(0, 40, (len(queries), 3)), 0.2)


EVERY: list[tuple[Sections, set[str]]] = [
    ({}, {"in_batch", "index"}),
    ({"negatives": {"index_batch_size": 0}}, {"in_batch"}),
    ({"negatives": {"queue_batches": 2}}, {"in_batch", "index", "remembered"}),
    ({"negatives": {"cached": 7, "index_batch_size": 0}}, {"in_batch", "remembered"}),
    ({"negatives": {"kind": "full"}}, {"index"}),
    ({"negatives": {"kind": "sampled", "index_batch_size": 9}, "loss": {"design": "inclusion"}}, {"index"}),
    ({"loss": {"design": "all_corrected"}}, {"in_batch", "index"}),
    ({"loss": {"masks": ["item", "known"]}, "train": {"matmul": "bfloat16"}}, {"in_batch", "index"}),
]


@pytest.mark.parametrize(("sections", "streams"), [pytest.param(*case, id=str(case[0])) for case in EVERY])
def test_facts_are_finite_and_the_pulls_of_the_streams_that_are_there_add_up_to_one(
    built: Built, sections: Sections, streams: set[str]
) -> None:
    facts = step_facts(*after_a_step(built, sections, steps=2))
    assert all(math.isfinite(value) for value in facts.values())
    assert all(type(value) in (int, float) for value in facts.values())  # the log is JSON
    pulls = {name.removeprefix("pull_"): value for name, value in facts.items() if name.startswith("pull_")}
    assert pulls.keys() == streams and facts["streams"] == len(streams)
    assert min(pulls.values()) > 0 and sum(pulls.values()) == pytest.approx(1, abs=1e-5)
    assert facts["dim"] == 11 and 0 <= facts["masked_share"] <= 1


def test_mined_columns_are_a_stream_of_their_own_and_no_mask(built: Built) -> None:
    learner, batch = after_a_step(built, mine=mined_at_random)
    facts = step_facts(learner, batch)
    assert facts["streams"] == 3
    assert facts["pull_in_batch"] + facts["pull_index"] + facts["pull_mined"] == pytest.approx(1, abs=1e-5)
    assert batch.hidden is not None and batch.hidden.mean() > 0.5  # each is hidden from all rows but one, as it is meant
    assert facts["masked_share"] < 0.2


@pytest.mark.parametrize("sections", [{}, {"loss": {"masks": ["item", "known"]}}, {"negatives": {"kind": "full"}}], ids=str)
def test_hits_and_masked_cells_are_counted_as_by_plain_loops(built: Built, sections: Sections) -> None:
    learner, batch = after_a_step(built, sections)
    facts, size, columns = step_facts(learner, batch), len(batch.weight), batch.column_item_row
    first = 0 if learner.negatives.in_batch else size
    hits = hidden = cells = 0
    for i in range(size):
        for j in range(first, len(columns)):
            if j == i:
                continue
            cells += 1
            hit = columns[j] == columns[i]
            hits += int(hit)
            hidden += int(hit or (batch.hidden is not None and bool(batch.hidden[i, j])))
    assert facts["accidental_hits"] == pytest.approx(hits / size)
    assert facts["masked_share"] == pytest.approx(hidden / cells)


@pytest.mark.parametrize("sections", [{}, {"negatives": {"queue_batches": 2, "cached": 13}}, {"negatives": {"kind": "full"}}], ids=str)
def test_as_many_hits_are_met_as_are_expected(built: Built, sections: Sections) -> None:
    learner, _ = after_a_step(built, sections, steps=3)
    found, expected = [], []
    for step in range(3, 3 + learner.maker.steps_per_epoch):
        batch = learner.maker.make(step)
        learner.learn(batch)
        facts = step_facts(learner, batch)
        found.append(facts["accidental_hits"])
        expected.append(facts["accidental_hits_expected"])
    # 19 batches of 32: the mean of some 600 rows
    assert float(np.mean(found)) == pytest.approx(float(np.mean(expected)), rel=0.12)


def test_the_slope_of_length_over_popularity_is_found(built: Built) -> None:
    learner, batch = after_a_step(built)
    assert learner.scored is not None
    counts = torch.from_numpy(built[0].item_counts[batch.item_row]).float()
    direction = torch.nn.functional.normalize(numbers(len(counts), 11))
    with_vectors(learner, learner.scored.items.vector, direction * (1 + counts)[:, None] ** 0.7)
    assert step_facts(learner, batch)["item_norm_by_log_count"] == pytest.approx(0.7, abs=1e-4)


def test_the_share_of_unknown_ids_counts_columns_by_hand(built: Built) -> None:
    learner, batch = after_a_step(built, {"model": {"id_dropout": 0.0}})
    unknown = [row >= 46 for row in batch.column_item_row.tolist()]  # the last seven of 53 items were never chosen
    assert any(unknown)
    assert unknown_share(learner, batch) == pytest.approx(np.mean(unknown))


# --- warnings


def test_a_healthy_training_has_no_warnings_once_it_has_begun(built: Built) -> None:
    class Notes:
        def __init__(self) -> None:
            self.records: list[dict[str, Any]] = []

        def record(self, facts: dict[str, Any]) -> None:
            self.records.append(facts)

        def advance(self, step: int, steps: int, loss: float) -> None:
            """Nothing is shown."""

    trainer, notes = Trainer(built[0], built[0].train, built[1]), Notes()
    trainer.fit(None, notes)
    later = [facts for facts in notes.records if facts["epoch"] > 0]
    assert len(later) > 5
    assert [facts["warnings"] for facts in later] == [[]] * len(later)


def test_collapsed_vectors_are_called_so(built: Built) -> None:
    learner, batch = after_a_step(built)
    with_vectors(learner, torch.ones(batch.candidates, 11) + 0.01 * numbers(batch.candidates, 11))
    found = " ".join(warnings_of(step_facts(learner, batch)))
    assert "mean cosine 1.00" in found and "span 1.0 dimensions" in found


def test_vectors_along_one_line_are_called_so_though_their_cosines_cancel(built: Built) -> None:
    learner, batch = after_a_step(built)
    sign = torch.where(torch.arange(batch.candidates) % 2 == 0, 1.0, -1.0)
    with_vectors(learner, sign[:, None] * torch.ones(1, 11))
    (warning,) = warnings_of(step_facts(learner, batch))
    assert "span 1.0 dimensions" in warning


@pytest.mark.parametrize("dim", [2, 3, 5, 11, 128, 512])
def test_vectors_in_all_directions_are_no_alarm_in_any_dimension(dim: int) -> None:
    vectors = numbers(1009, dim)
    facts = {"item_mean_cosine": mean_cosine(vectors), "item_effective_rank": effective_rank(vectors), "dim": dim}
    assert warnings_of(facts) == []
    assert warnings_of({**facts, "item_effective_rank": 1.0}) != [] or dim == 2


def test_the_rank_that_alarms_by_hand() -> None:
    # a twentieth of the dimensions, 2 at least, and never more than half of them
    assert [lowest_rank(dim) for dim in (128, 20, 3, 2, 0)] == [6.4, 2.0, 1.5, 1.0, 0.0]


def test_unknown_ids_are_called_so(built: Built) -> None:
    facts = step_facts(*after_a_step(built, {"model": {"id_dropout": 0.99}}))
    assert facts["unknown_id_share"] > 0.95
    assert any("unknown id" in warning for warning in warnings_of(facts))


def test_a_small_corpus_that_is_mostly_masked_is_called_so(built: Built) -> None:
    all_one = replace(built[0].train, asker=np.zeros(len(built[0].train), np.int64))  # one asker, who chose every chosen item
    learner = Learner(built[0], all_one, config_of(built[1], {"loss": {"masks": ["item", "known"]}}))
    batch = learner.maker.make(0)
    learner.learn(batch)
    (warning,) = (text for text in warnings_of(step_facts(learner, batch)) if "masked" in text)
    assert "lower negatives.batch_size" in warning


CAUSES: dict[str, dict[str, Any]] = {
    "collapse": {"item_mean_cosine": 0.9},
    "low rank": {"item_effective_rank": 1.5, "dim": 64},
    "masked": {"masked_share": 0.5},
    "unknown": {"unknown_id_share": 0.99},
    "in_batch": {"pull_in_batch": 0.99, "pull_index": 0.01, "streams": 2},
    "index": {"pull_in_batch": 0.01, "pull_index": 0.99, "streams": 2},
    "mined": {"pull_mined": 0.99, "streams": 3},
    "remembered": {"pull_remembered": 0.99, "streams": 3},
}


@pytest.mark.parametrize("facts", CAUSES.values(), ids=list(CAUSES))
def test_each_cause_gives_one_warning_that_names_a_cure(built: Built, facts: dict[str, Any]) -> None:
    (warning,) = warnings_of(facts)
    settings = re.findall(r"\b(train|model|negatives|loss)\.(\w+)", warning)
    assert all(hasattr(getattr(built[1], section), key) for section, key in settings), warning
    assert settings or "ids" in warning


def test_one_stream_alone_does_not_idle_the_others() -> None:
    assert warnings_of({"pull_in_batch": 1.0, "streams": 1}) == []


def test_facts_that_are_not_there_are_not_judged() -> None:
    assert warnings_of({}) == []
    assert warnings_of({"loss": 1.0, "pull_index": 0.99, "item_effective_rank": 1.0}) == []
