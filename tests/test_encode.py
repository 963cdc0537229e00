"""What is searched equals what was trained, whatever the blocks."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from small_project import ITEMS, small_dataset

from shortlist import encode
from shortlist.batches import Batch
from shortlist.dataset import Dataset
from shortlist.encode import Corpus, codes_for, encode_catalogue, encode_corpus, encode_queries, full_corpus_loss
from shortlist.id_places import row_blocks
from shortlist.towers import EncodedItems
from shortlist.train import Trainer

QUERIES, DRAWN, D = 29, 23, 11


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return small_dataset(tmp_path_factory.mktemp("project"))[0]


@pytest.fixture(scope="module", params=[True, False], ids=["with item bias", "without item bias"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    """A model after a few steps, so that nothing is at its start value."""
    data, config = small_dataset(
        tmp_path_factory.mktemp("project"),
        {"model": {"embedding_dim": 8, "hidden": [19, 11], "item_bias": request.param}, "negatives": {"index_from": "corpus"}},
    )
    trainer = Trainer(data, data.train, config)
    for step in range(8):
        trainer.learner.learn(trainer.maker.make(step))
    return trainer


def batch_of(trainer: Trainer, dataset: Dataset) -> tuple[NDArray[np.int64], Batch]:
    chosen = np.random.default_rng(0).choice(len(dataset.train), QUERIES, replace=False)
    drawn = np.random.default_rng(1).choice(ITEMS, DRAWN, replace=False)
    return chosen, trainer.maker.assemble(dataset.train.take(chosen), drawn, None)


@torch.no_grad()
def as_in_training(trainer: Trainer, batch: Batch) -> tuple[torch.Tensor, EncodedItems]:
    return trainer.learner.model.encode_batch(batch, trainer.learner.sources(batch))


def encoded(trainer: Trainer, dataset: Dataset) -> tuple[Corpus, NDArray[np.float32]]:
    tables = trainer.learner.tables.weights
    corpus = encode_corpus(trainer.learner.model, tables, dataset.item_features)
    queries = encode_queries(
        trainer.learner.model, tables, dataset.train.queries, user_features=dataset.user_features, embedding=corpus.embedding
    )
    return corpus, queries


def blocks_of_five(count: int, size: int) -> Iterator[slice]:
    return row_blocks(count, 5)


def test_the_corpus_has_the_item_vectors_of_training(trained: Trainer, dataset: Dataset) -> None:
    _, batch = batch_of(trained, dataset)
    _, items = as_in_training(trained, batch)
    corpus, _ = encoded(trained, dataset)
    candidates = batch.item_row[: batch.candidates]
    np.testing.assert_allclose(corpus.embedding[batch.item_row], items.embedding.numpy(), atol=1e-6)
    np.testing.assert_allclose(corpus.vector[candidates, :D], items.vector.numpy(), atol=1e-6)
    assert corpus.vector.shape == (ITEMS, D if items.bias is None else D + 1)


def test_encoded_queries_have_the_query_vectors_of_training(trained: Trainer, dataset: Dataset) -> None:
    chosen, batch = batch_of(trained, dataset)
    queries, _ = as_in_training(trained, batch)
    _, encoded_queries = encoded(trained, dataset)
    np.testing.assert_allclose(encoded_queries[chosen, :D], queries.numpy(), atol=1e-6)


def test_the_inner_product_over_the_temperature_is_the_logit(trained: Trainer, dataset: Dataset) -> None:
    chosen, batch = batch_of(trained, dataset)
    queries, items = as_in_training(trained, batch)
    logits = queries @ items.vector.T / trained.learner.model.temperature
    if items.bias is not None:
        logits = logits + items.bias
    corpus, encoded_queries = encoded(trained, dataset)
    searched = encoded_queries[chosen] @ corpus.vector[batch.item_row[: batch.candidates]].T / 0.1
    np.testing.assert_allclose(searched, logits.detach().numpy(), atol=2e-5)


def test_blocks_do_not_matter(trained: Trainer, dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus, queries = encoded(trained, dataset)
    log_weight = np.zeros(ITEMS, np.float32)
    loss = full_corpus_loss(trained.learner.model, trained.learner.tables.weights, dataset, dataset.train, log_weight)
    monkeypatch.setattr(encode, "row_blocks", blocks_of_five)
    by_fives, queries_by_fives = encoded(trained, dataset)
    np.testing.assert_allclose(by_fives.embedding, corpus.embedding, atol=1e-6)
    np.testing.assert_allclose(by_fives.vector, corpus.vector, atol=1e-6)
    np.testing.assert_allclose(queries_by_fives, queries, atol=1e-6)
    again = full_corpus_loss(trained.learner.model, trained.learner.tables.weights, dataset, dataset.train, log_weight)
    assert again == pytest.approx(loss, abs=1e-6)


def test_a_corpus_encoded_into_another_ones_memory_is_the_same(trained: Trainer, dataset: Dataset) -> None:
    learner = trained.learner
    corpus = encode_corpus(learner.model, learner.tables.weights, dataset.item_features)
    other = Corpus(np.full_like(corpus.embedding, np.nan), np.full_like(corpus.vector, np.nan))
    found = encode_corpus(learner.model, learner.tables.weights, dataset.item_features, into=other)
    assert found is other
    assert np.array_equal(found.embedding, corpus.embedding) and np.array_equal(found.vector, corpus.vector)


def test_the_number_of_threads_changes_no_byte_and_stays_as_it_was(trained: Trainer, dataset: Dataset) -> None:
    before, found = torch.get_num_threads(), []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        try:
            found.append(encoded(trained, dataset))
            assert torch.get_num_threads() == threads
        finally:
            torch.set_num_threads(before)
    (one, queries_of_one), (three, queries_of_three) = found
    assert one.vector.tobytes() == three.vector.tobytes() and one.embedding.tobytes() == three.embedding.tobytes()
    assert queries_of_one.tobytes() == queries_of_three.tobytes()


def test_a_catalogue_encoded_by_blocks_has_the_vectors_of_the_corpus(
    trained: Trainer, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = trained.learner
    monkeypatch.setattr(encode, "_ITEMS_AT_ONCE", 11)  # 53 items: four blocks and a last one of 9
    found = encode_catalogue(learner.model, learner.tables.weights, dataset.item_encoder, dataset.items.frame)
    corpus = encode_corpus(learner.model, learner.tables.weights, dataset.item_features, codes=codes_for(learner.model, dataset))
    np.testing.assert_allclose(found.embedding, corpus.embedding, atol=1e-6)
    np.testing.assert_allclose(found.vector, corpus.vector, atol=1e-6)


def test_no_queries_are_no_vectors_of_the_right_width(trained: Trainer, dataset: Dataset) -> None:
    corpus, _ = encoded(trained, dataset)
    none = encode_queries(
        trained.learner.model,
        trained.learner.tables.weights,
        dataset.train.queries.take(np.zeros(0, np.int64)),
        user_features=dataset.user_features,
        embedding=corpus.embedding,
    )
    assert none.shape == (0, corpus.vector.shape[1])
    assert none.dtype == np.float32


def test_the_full_corpus_loss_is_the_mean_of_minus_log_shares(trained: Trainer, dataset: Dataset) -> None:
    examples = dataset.train.take(np.arange(0, len(dataset.train), 20))
    corpus, queries = encoded(trained, dataset)
    log_weight, total = np.where(dataset.item_counts > 0, 0.0, math.log(0.25)).astype(np.float32), 0.0
    for row, positive in zip(range(0, len(dataset.train), 20), examples.item_row.tolist(), strict=True):
        logits = corpus.vector.astype(np.float64) @ queries[row].astype(np.float64) / 0.1 + log_weight
        total += math.log(sum(math.exp(value) for value in logits)) - logits[positive]
    found = full_corpus_loss(trained.learner.model, trained.learner.tables.weights, dataset, examples, log_weight)
    assert found == pytest.approx(total / len(examples), abs=2e-5)


def test_encoding_leaves_no_gradients_and_changes_nothing(trained: Trainer, dataset: Dataset) -> None:
    before = {name: value.clone() for name, value in trained.learner.weights().items()}
    encoded(trained, dataset)
    assert all(torch.equal(value, before[name]) for name, value in trained.learner.weights().items())
