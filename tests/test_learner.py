"""One step with all its streams: what is counted, what is hidden, what is remembered, and what survives a kill."""

from __future__ import annotations

import gc
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from small_project import GROUPS, small_dataset

from shortlist.batches import Batch, Mine, Mined
from shortlist.config import config_from_tree, config_tree
from shortlist.dataset import Dataset
from shortlist.encode import encode_corpus
from shortlist.learner import Learner
from shortlist.queries import Queries
from shortlist.sections import Config
from shortlist.streaming import StreamingFrequency, keys_of_ids
from shortlist.train import Trainer

Sections = Mapping[str, Mapping[str, Any]]
B, DRAWN, QUEUE_BATCHES, CACHED = 32, 23, 2, 13
EVERY_STREAM: Sections = {"negatives": {"queue_batches": QUEUE_BATCHES, "cached": CACHED, "unchosen_weight": 1.0}}
STREAMING: Sections = {"frequency": {"kind": "streaming", "rate": 0.01}, "negatives": {"unchosen_weight": 1.0}}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Config]:
    return small_dataset(tmp_path_factory.mktemp("learner"), {"negatives": {"index_from": "corpus"}})  # counts by hand are over all items


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def config_of(config: Config, sections: Sections) -> Config:
    tree = config_tree(config)
    return config_from_tree({**tree, **{name: {**tree.get(name, {}), **values} for name, values in sections.items()}})


def learner_of(built: tuple[Dataset, Config], sections: Sections, *, mine: Mine | None = None, askers: int | None = None) -> Learner:
    """A fresh learner, begun; with `askers`, the log is that of so many people."""
    dataset, config = built
    examples = dataset.train if askers is None else replace(dataset.train, asker=dataset.train.asker % askers)
    learner = Learner(dataset, examples, config_of(config, sections), mine=mine)
    learner.begin()
    return learner


def after(learner: Learner, steps: int) -> Batch:
    """Learns from so many steps, and gives the batch of the last."""
    for step in range(steps):
        batch = learner.maker.make(step)
        learner.learn(batch)
    return batch


def counts_seen(learner: Learner) -> NDArray[np.float64]:
    """(C,) the expected counts that the last step's softmax was corrected by."""
    assert learner.scored is not None
    return np.exp(learner.scored.candidates.log_n.double().numpy())


def rows_seen(learner: Learner) -> NDArray[np.int64]:
    assert learner.scored is not None
    rows: NDArray[np.int64] = learner.scored.candidates.item_row.numpy()
    return rows


def slow_loss(learner: Learner, weight: NDArray[np.float32], temperature: float = 0.1, hardest: int = 0) -> float:
    """The mean loss of what the last step's softmax saw, by plain loops; equal ids and hidden cells are left out."""
    scored = learner.scored
    assert scored is not None and scored.bias is not None
    logits = scored.similarity.double().numpy() / temperature + scored.bias.double().numpy()
    rows, log_n, total = rows_seen(learner), scored.candidates.log_n.double().numpy(), 0.0
    for i in range(len(logits)):
        hidden = scored.candidates.hidden
        kept = [j for j in range(len(rows)) if rows[j] != rows[i] and not (hidden is not None and hidden[i, j])]
        terms = sorted((logits[i, j] - log_n[j] for j in kept), reverse=True)[: hardest or None]
        total += weight[i] * (math.log(math.exp(logits[i, i]) + sum(math.exp(term) for term in terms)) - logits[i, i])
    return total / float(weight.sum())


# --- counts


def test_queued_positives_add_their_number_times_the_share_to_every_count(built: tuple[Dataset, Config]) -> None:
    learner = learner_of(built, {"negatives": {"queue_batches": QUEUE_BATCHES, "unchosen_weight": 1.0}})
    q = built[0].item_counts / built[0].item_counts.sum()
    queued = 0
    for step in range(4):
        batch = learner.maker.make(step)
        learner.learn(batch)
        rows, size = rows_seen(learner), len(batch.weight)
        assert len(rows) == size + DRAWN + queued
        np.testing.assert_allclose(counts_seen(learner), (size - 1 + queued) * q[rows] + DRAWN / len(q), rtol=1e-5)
        queued = min(queued + size, QUEUE_BATCHES * B)
    assert queued == QUEUE_BATCHES * B


def test_cached_draws_add_their_share_of_the_corpus_to_every_count(built: tuple[Dataset, Config]) -> None:
    learner = learner_of(built, {"negatives": {"cached": CACHED, "unchosen_weight": 1.0}})
    batch = after(learner, 2)
    q, rows = built[0].item_counts / built[0].item_counts.sum(), rows_seen(learner)
    assert len(rows) == len(batch.weight) + DRAWN + CACHED
    np.testing.assert_allclose(counts_seen(learner), (len(batch.weight) - 1) * q[rows] + (DRAWN + CACHED) / len(q), rtol=1e-5)


@pytest.mark.parametrize("sections", [EVERY_STREAM, {**STREAMING, **EVERY_STREAM}], ids=["exact", "streaming"])
def test_an_item_has_one_log_n_whatever_stream_brought_it(built: tuple[Dataset, Config], sections: Sections) -> None:
    learner = learner_of(built, sections)
    after(learner, 4)
    counts, rows = counts_seen(learner), rows_seen(learner)
    assert len(rows) > len(set(rows.tolist()))
    for row in set(rows.tolist()):
        assert len(set(counts[rows == row].tolist())) == 1


def test_without_further_streams_the_counts_are_those_of_the_batch(built: tuple[Dataset, Config]) -> None:
    learner = learner_of(built, {})
    batch = after(learner, 2)
    assert learner.scored is not None
    assert learner.scored.candidates.log_n.tolist() == batch.log_n.tolist()
    assert learner.scored.candidates.draws == len(batch.weight) - 1 + DRAWN


def test_the_draws_count_all_streams(built: tuple[Dataset, Config]) -> None:
    learner = learner_of(built, EVERY_STREAM)
    batch = after(learner, 5)
    assert learner.scored is not None
    assert learner.scored.candidates.draws == len(batch.weight) - 1 + DRAWN + CACHED + QUEUE_BATCHES * B


def test_a_mined_column_has_its_own_chance_on_top_beside_a_queue(built: tuple[Dataset, Config]) -> None:
    def mine(queries: Queries, rng: np.random.Generator) -> Mined:
        return Mined(rng.integers(0, 40, (len(queries), 2)), 0.25)

    learner = learner_of(built, {"negatives": {"queue_batches": 1, "unchosen_weight": 1.0}}, mine=mine)
    batch = after(learner, 2)
    q, rows, size = built[0].item_counts / built[0].item_counts.sum(), rows_seen(learner), len(batch.weight)
    expected = (size - 1 + learner.maker.make(0).weight.size) * q[rows] + DRAWN / len(q)
    expected[size + DRAWN : size + DRAWN + 2 * size] += 0.25
    np.testing.assert_allclose(counts_seen(learner), expected, rtol=1e-5)


# --- counts from the stream


@pytest.mark.parametrize("drawn", [0, DRAWN])
def test_the_stream_is_read_before_it_takes_the_batch_but_after_where_nothing_else_lifts_a_count(
    built: tuple[Dataset, Config], drawn: int
) -> None:
    learner = learner_of(built, {**STREAMING, "negatives": {"index_batch_size": drawn, "unchosen_weight": 1.0}})
    assert learner.stream is not None
    own, keys = StreamingFrequency(learner.stream.settings), keys_of_ids(built[0].items.ids)
    for step in range(5):
        batch = learner.maker.make(step)
        learner.learn(batch)
        rows, size = batch.column_item_row, len(batch.weight)
        if drawn == 0:
            own.update(keys[rows[:size]])
        expected = own.estimate(keys[rows]) * (size - 1) / size + drawn / len(keys)
        np.testing.assert_allclose(counts_seen(learner), expected, rtol=1e-5)
        if drawn > 0:
            own.update(keys[rows[:size]])


def test_cached_draws_lift_a_count_as_well(built: tuple[Dataset, Config]) -> None:
    learner = learner_of(built, {**STREAMING, "negatives": {"index_batch_size": 0, "cached": CACHED, "unchosen_weight": 1.0}})
    after(learner, 1)  # the stream had met nothing: all that is expected are the cached draws
    np.testing.assert_allclose(counts_seen(learner), CACHED / len(built[0].items), rtol=1e-5)


def test_after_many_steps_the_stream_tells_nearly_the_exact_counts(built: tuple[Dataset, Config]) -> None:
    learner = learner_of(built, {**STREAMING, "frequency": {"kind": "streaming", "buckets": 100_003}})
    assert learner.stream is not None and learner.keys is not None
    for step in range(600):  # the stream alone, without the towers: some 30 passes
        learner.stream.update(learner.keys[learner.maker.examples.item_row[learner.maker.example_rows(step)]])
    batch = learner.maker.make(600)
    learner.learn(batch)
    counts, rows = built[0].item_counts, rows_seen(learner)
    often = counts[rows] >= 20
    exact = (len(batch.weight) - 1) * counts[rows] / counts.sum() + DRAWN / len(counts)
    ratio = counts_seen(learner)[often] / exact[often]
    # an average over 1/a = 100 steps of draws of at least 1 a step: a deviation of some 7 %
    assert len(ratio) > 10
    assert abs(float(ratio.mean()) - 1) < 0.05 and float(np.abs(ratio - 1).max()) < 0.3


def test_the_stream_has_as_many_buckets_as_the_settings_say(built: tuple[Dataset, Config]) -> None:
    def buckets(**frequency: Any) -> int:
        stream = learner_of(built, {"frequency": {"kind": "streaming", **frequency}}).stream
        assert stream is not None
        return stream.settings.buckets

    assert buckets() == 5 * 53
    assert buckets(hashes=4) == 268  # 5 * 53 = 265, and the next multiple of 4
    assert buckets(buckets=101) == 101


# --- remembered columns


def test_remembered_columns_are_the_vectors_that_were_encoded_last(built: tuple[Dataset, Config]) -> None:
    learner = learner_of(built, EVERY_STREAM)
    first = after(learner, 1)
    assert learner.scored is not None and learner.memory is not None
    seen = learner.scored.items
    batch = learner.maker.make(1)
    assert batch.cached_rows is not None
    old_rows, old = learner.memory.columns(batch.cached_rows)
    assert old_rows.tolist() == [*first.column_item_row[: len(first.weight)].tolist(), *batch.cached_rows.tolist()]
    positives = torch.from_numpy(first.columns[: len(first.weight)])
    assert seen.bias is not None
    assert torch.equal(old[: len(positives), :-1], seen.vector[positives])
    assert torch.equal(old[: len(positives), -1], seen.bias[positives])
    with torch.no_grad():
        queries, _ = learner.model.encode_batch(batch, learner.sources(batch))
    learner.learn(batch)
    assert learner.scored.bias is not None
    width = len(batch.columns)
    np.testing.assert_allclose(learner.scored.similarity[:, width:], queries @ old[:, :-1].T, atol=1e-6)
    assert torch.equal(learner.scored.bias[width:], old[:, -1])


@pytest.mark.parametrize("item_bias", [True, False])
def test_the_cache_starts_with_the_corpus_as_the_model_sees_it(built: tuple[Dataset, Config], item_bias: bool) -> None:
    learner = learner_of(built, {**EVERY_STREAM, "model": {"item_bias": item_bias}})
    assert learner.memory is not None
    dataset = built[0]
    everything = {name: column.take(np.arange(len(dataset.items))) for name, column in dataset.item_features.items()}
    with torch.no_grad():
        items = learner.model.encode_items(everything, learner.tables.weights, len(dataset.items))
    np.testing.assert_allclose(learner.memory.cache[:, :-1], items.vector, atol=1e-6)
    bias = torch.zeros(len(dataset.items)) if items.bias is None else items.bias
    np.testing.assert_allclose(learner.memory.cache[:, -1], bias, atol=1e-5)
    assert (items.bias is not None) == item_bias


def test_a_step_refreshes_the_items_it_encodes_and_no_other(built: tuple[Dataset, Config]) -> None:
    learner = learner_of(built, EVERY_STREAM)
    after(learner, 2)  # the first step's top layers pass little down
    assert learner.memory is not None
    before = learner.memory.cache.clone()
    batch = learner.maker.make(2)
    learner.learn(batch)
    moved = (learner.memory.cache != before).any(dim=1).nonzero()[:, 0].tolist()
    assert set(moved) <= set(batch.item_row[: batch.candidates].tolist())
    assert len(moved) > batch.candidates // 2


def test_an_unbiased_model_remembers_too(built: tuple[Dataset, Config]) -> None:
    learner = learner_of(built, {**EVERY_STREAM, "model": {"item_bias": False}})
    after(learner, 3)
    assert learner.scored is not None and learner.scored.bias is None
    assert len(rows_seen(learner)) == learner.scored.similarity.shape[1]


# --- what the softmax sees


@pytest.mark.parametrize("sections", [{}, EVERY_STREAM, {**STREAMING, **EVERY_STREAM}], ids=["plain", "every stream", "streaming"])
def test_the_loss_is_that_of_all_columns_by_plain_arithmetic_with_equal_ids_left_out(
    built: tuple[Dataset, Config], sections: Sections
) -> None:
    learner = learner_of(built, sections)
    after(learner, 3)
    batch = learner.maker.make(3)
    value = learner.learn(batch)
    rows, size = rows_seen(learner), len(batch.weight)
    if learner.memory is not None:
        assert (rows[:size, None] == rows[None, len(batch.columns) :]).any()  # there are hits among what is remembered
    assert value == pytest.approx(slow_loss(learner, batch.weight), rel=1e-5)


@pytest.mark.parametrize("hardest", [1, 5, 10_000])
def test_only_the_hardest_negatives_of_each_row_count(built: tuple[Dataset, Config], hardest: int) -> None:
    learner = learner_of(built, {"negatives": {**EVERY_STREAM["negatives"], "hardest": hardest}})
    after(learner, 2)
    batch = learner.maker.make(2)
    assert learner.learn(batch) == pytest.approx(slow_loss(learner, batch.weight, hardest=hardest), rel=1e-5)


def chose(learner: Learner) -> dict[int, set[int]]:
    found: dict[int, set[int]] = {}
    for asker, item in zip(learner.maker.examples.asker.tolist(), learner.maker.examples.item_row.tolist(), strict=True):
        if asker >= 0:
            found.setdefault(asker, set()).add(item)
    return found


def test_what_an_asker_is_known_to_have_chosen_is_hidden_in_every_stream(built: tuple[Dataset, Config]) -> None:
    learner = learner_of(built, {**EVERY_STREAM, "loss": {"masks": ["item", "known"]}})
    after(learner, 3)
    batch = learner.maker.make(3)
    value = learner.learn(batch)
    assert learner.scored is not None and batch.asker is not None
    hidden, rows, known = learner.scored.candidates.hidden, rows_seen(learner), chose(learner)
    assert hidden is not None
    for i, asker in enumerate(batch.asker.tolist()):
        assert hidden[i].tolist() == [row in known.get(asker, set()) and row != rows[i] for row in rows.tolist()]
    assert bool(hidden[:, len(batch.columns) :].any())
    assert value == pytest.approx(slow_loss(learner, batch.weight), rel=1e-5)


def test_other_positives_of_the_same_asker_are_hidden_from_the_loss(built: tuple[Dataset, Config]) -> None:
    sections: Sections = {"loss": {"masks": ["item", "same_query"]}, "negatives": {"unchosen_weight": 1.0}}
    learner, plain = learner_of(built, sections, askers=7), learner_of(built, {"negatives": {"unchosen_weight": 1.0}}, askers=7)
    batch = learner.maker.make(0)
    value = learner.learn(batch)
    assert batch.hidden is not None and batch.hidden.any(axis=1).mean() > 0.5
    assert value == pytest.approx(slow_loss(learner, batch.weight), rel=1e-5)
    assert value < plain.learn(plain.maker.make(0)) - 0.01


def test_under_all_corrected_equal_ids_stay_columns_whatever_the_masks(built: tuple[Dataset, Config]) -> None:
    learner = learner_of(built, {"loss": {"design": "all_corrected", "masks": ["known", "same_query"]}}, askers=7)
    batch = learner.maker.make(0)
    value = learner.learn(batch)
    scored = learner.scored
    assert scored is not None and scored.bias is not None and batch.hidden is not None
    terms = scored.similarity.double().numpy() / 0.1 + scored.bias.double().numpy() - batch.log_n
    rows, known, total, copies = batch.column_item_row, chose(learner), 0.0, 0
    assert batch.asker is not None
    for i, asker in enumerate(batch.asker.tolist()):
        kept = [j for j in range(len(rows)) if j != i and (rows[j] == rows[i] or rows[j] not in known.get(asker, set()))]
        copies += sum(int(rows[j] == rows[i]) for j in kept)
        total += batch.weight[i] * (math.log(math.exp(terms[i, i]) + sum(math.exp(terms[i, j]) for j in kept)) - terms[i, i])
    assert copies > 0
    assert value == pytest.approx(total / batch.weight.sum(), rel=1e-5)


@pytest.mark.parametrize(
    "sections",
    [
        {"negatives": {"kind": "full"}},
        {"negatives": {"kind": "sampled", "index_batch_size": 11}, "loss": {"design": "inclusion"}},
        {"loss": {"design": "inclusion"}},
        {"loss": {"design": "paper_literal"}, **EVERY_STREAM},
        {"loss": {"design": "uncorrected"}, **EVERY_STREAM},
        {"model": {"item_tower": "table", "history_pooling": "attention", "cross_layers": 1}, **EVERY_STREAM},
        {"model": {"learn_temperature": True}, **EVERY_STREAM},
        {"train": {"matmul": "bfloat16"}, **EVERY_STREAM},
    ],
    ids=str,
)
def test_every_design_learns(built: tuple[Dataset, Config], sections: Sections) -> None:
    learner = learner_of(built, sections)
    per_epoch = learner.maker.steps_per_epoch
    losses = [learner.learn(learner.maker.make(step)) for step in range(3 * per_epoch)]
    assert np.mean(losses[-per_epoch:]) < np.mean(losses[:per_epoch])


# --- memory and saving


def test_what_is_kept_for_the_diagnostics_holds_no_graph(built: tuple[Dataset, Config]) -> None:
    learner = learner_of(built, EVERY_STREAM)
    after(learner, 2)
    scored = learner.scored
    assert scored is not None and scored.bias is not None and scored.items.bias is not None
    kept = (scored.similarity, scored.bias, scored.items.embedding, scored.items.vector, scored.items.bias)
    assert not any(value.requires_grad or value.grad_fn is not None for value in kept)


def test_the_number_of_living_tensors_does_not_grow_with_the_steps(built: tuple[Dataset, Config]) -> None:
    learner = learner_of(built, {**STREAMING, **EVERY_STREAM})

    def living(step: int) -> int:
        learner.learn(learner.maker.make(step))
        gc.collect()
        return sum(1 for found in gc.get_objects() if type(found) in (torch.Tensor, torch.nn.Parameter))

    after(learner, 4)  # until the queue is full
    numbers = [living(step) for step in range(4, 7)]
    assert max(numbers) - min(numbers) <= 2, numbers


class Killed(Exception):
    """Stands for a kill."""


class Notes:
    """A train log that says nothing, and may end it all after some steps."""

    def __init__(self, last_step: int | None = None) -> None:
        self.last_step = last_step

    def record(self, facts: dict[str, Any]) -> None:
        """Nothing is kept."""

    def advance(self, step: int, steps: int, loss: float) -> None:
        if step == self.last_step:
            raise Killed


@pytest.mark.parametrize(
    "sections",
    [{**EVERY_STREAM, "frequency": {"kind": "streaming", "hashes": 2}}, EVERY_STREAM, STREAMING],
    ids=["queue, cache and stream", "queue and cache", "stream"],
)
def test_a_killed_run_with_memories_resumes_to_the_same_bytes(built: tuple[Dataset, Config], sections: Sections, tmp_path: Path) -> None:
    dataset, config = built[0], config_of(built[1], {**sections, "train": {**config_tree(built[1])["train"], "epochs": 2}})
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    whole = Trainer(dataset, dataset.train, config, folder=tmp_path / "whole")
    whole.fit(None, Notes())
    for last_step in (8, 20, 23):  # checkpoints stand at every third step
        with pytest.raises(Killed):
            Trainer(dataset, dataset.train, config, folder=tmp_path / "killed").fit(None, Notes(last_step))
    resumed = Trainer(dataset, dataset.train, config, folder=tmp_path / "killed")
    resumed.fit(None, Notes())
    one, other = whole.learner.state(), resumed.learner.state()
    assert one.keys() == other.keys()
    assert [name for name, value in one.items() if not torch.equal(value, other[name])] == []
    saved = [(tmp_path / name / "checkpoint.safetensors").read_bytes() for name in ("whole", "killed")]
    assert saved[0] == saved[1]


def test_the_published_weights_hold_nothing_of_the_memories(built: tuple[Dataset, Config]) -> None:
    learner = learner_of(built, {**STREAMING, **EVERY_STREAM})
    assert {name.split("/")[0] for name in learner.weights()} == {"model", "table"}
    assert {name.split("/")[0] for name in learner.state()} == {"model", "table", "sum", "memory", "stream"}


def test_the_corpus_of_a_learner_is_found_by_its_groups_with_every_stream_on(built: tuple[Dataset, Config]) -> None:
    learner = learner_of(built, {**STREAMING, **EVERY_STREAM, "model": {"item_bias": False}})
    after(learner, 6 * learner.maker.steps_per_epoch)
    vectors = encode_corpus(learner.model, learner.tables.weights, built[0].item_features).vector[: 8 * GROUPS]
    cosine, group = vectors @ vectors.T, np.arange(8 * GROUPS) % GROUPS
    same = group[:, None] == group[None, :]
    assert cosine[same & ~np.eye(len(group), dtype=bool)].mean() > cosine[~same].mean() + 0.2
