"""The two towers against plain arithmetic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from small_project import HISTORY_LAST, ITEMS, NEVER_CHOSEN, small_dataset
from torch import nn

from shortlist.dataset import Dataset
from shortlist.diagnostics import step_facts
from shortlist.features.arrays import Bag, Dense, FeatureArray, Ids
from shortlist.layers import NORM_FLOOR, normalise
from shortlist.tower_inputs import beside
from shortlist.towers import batch_id_rows, batch_table_rows, initial_tables, lookups
from shortlist.train import Trainer

D = 11  # hidden = [19, 11]
WIDTH = 8 * 5 + 2 + 4  # five embedded features of dimension 8; price and its flag; a look of three numbers and its flag
Built = tuple[Dataset, Any]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return small_dataset(tmp_path_factory.mktemp("project"))


def trainer(built: Built, *, shaken: bool = True, **model: Any) -> Trainer:
    """A fresh model with these settings, all its weights random where `shaken`: also those that start at zero."""
    dataset, config = built
    changed = msgspec.structs.replace(config, model=msgspec.structs.replace(config.model, **model))
    made = Trainer(dataset, dataset.train, changed)
    if shaken:
        generator = torch.Generator().manual_seed(7)
        with torch.no_grad():
            for value in made.learner.model.parameters():
                if value.requires_grad and value.dim():
                    value.add_(0.3 * torch.randn(value.shape, generator=generator))
    return made


def plain_mlp(layers: nn.Sequential, x: np.ndarray) -> np.ndarray:
    linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
    for number, layer in enumerate(linear):
        x = x @ layer.weight.detach().double().numpy().T + layer.bias.detach().double().numpy()
        if number < len(linear) - 1:
            x = np.maximum(x, 0.0)
    return x


def unit(x: np.ndarray) -> np.ndarray:
    scaled: np.ndarray = x / np.linalg.norm(x, axis=1, keepdims=True)
    return scaled


def inputs(columns: dict[str, FeatureArray], tables: dict[str, torch.Tensor], side: str) -> torch.Tensor:
    """What a tower sees of the columns."""
    rows = len(next(iter(columns.values())))
    return beside(lookups(columns, tables, side), rows=rows, kind=torch.float32)


def item_inputs(made: Trainer, dataset: Dataset) -> np.ndarray:
    return inputs(dataset.item_features, made.learner.tables.weights, "item").double().numpy()


# --- lookups


def test_an_embedded_bag_is_the_weighted_sum_of_its_rows() -> None:
    table = torch.tensor([[1.0, 0.0], [0.0, 10.0], [5.0, 5.0]])
    bag = Bag(np.array([0, 1, 2], np.int32), np.array([0, 2, 3]), np.array([0.5, 0.25, 2.0], np.float32))
    assert inputs({"tags": bag}, {"item/tags": table}, "item").tolist() == [[0.5, 2.5], [10.0, 10.0]]


def test_features_stand_side_by_side_in_their_order() -> None:
    columns: dict[str, FeatureArray] = {"a": Ids(np.array([1, 0], np.int32)), "b": Dense(np.array([[7.0, 8.0], [9.0, 6.0]], np.float32))}
    assert inputs(columns, {"user/a": torch.tensor([[1.0], [2.0]])}, "user").tolist() == [[2.0, 7.0, 8.0], [1.0, 9.0, 6.0]]


def test_looked_up_rows_of_a_fresh_table_have_a_length_of_about_one(built: Built) -> None:
    dataset, config = built
    tables = initial_tables(dataset, config.model, torch.Generator().manual_seed(0), dataset.item_counts)
    lengths = tables["item/title"].square().sum(dim=1)  # chi square of 8 degrees over 8: mean 1, deviation 1/2 a row
    assert lengths.mean().item() == pytest.approx(1.0, abs=4 * 0.5 / 62**0.5)


# --- the item tower


def test_items_have_the_shapes_they_are_said_to_have(built: Built) -> None:
    made = trainer(built)
    items = made.learner.model.encode_items(built[0].item_features, made.learner.tables.weights, 17)
    assert items.embedding.shape == (ITEMS, D)
    assert items.vector.shape == (17, D)
    assert items.bias is not None and items.bias.shape == (17,)
    assert torch.allclose(items.vector.norm(dim=1), torch.ones(17))


def test_without_the_linear_path_an_item_is_the_paper_s_plain_tower(built: Built) -> None:
    made = trainer(built, linear_path=False)
    x = item_inputs(made, built[0])
    assert x.shape == (ITEMS, WIDTH)
    items = made.learner.model.encode_items(built[0].item_features, made.learner.tables.weights, ITEMS)
    np.testing.assert_allclose(items.vector.detach().numpy(), unit(plain_mlp(made.learner.model.item.mlp, x)), atol=1e-5)


def test_with_the_linear_path_the_item_s_embedding_is_added(built: Built) -> None:
    made = trainer(built)
    x = item_inputs(made, built[0])
    embedding = x @ made.learner.model.item.embedding.weight.detach().double().numpy().T
    items = made.learner.model.encode_items(built[0].item_features, made.learner.tables.weights, ITEMS)
    np.testing.assert_allclose(items.embedding.detach().numpy(), embedding, atol=1e-5)
    np.testing.assert_allclose(items.vector.detach().numpy(), unit(plain_mlp(made.learner.model.item.mlp, x) + embedding), atol=1e-5)


def test_a_fresh_item_with_the_linear_path_is_its_embedding(built: Built) -> None:
    made = trainer(built, shaken=False)
    items = made.learner.model.encode_items(built[0].item_features, made.learner.tables.weights, ITEMS)
    # not bit by bit: zeros are added, and with addends another loop of C may round otherwise in its last lanes
    torch.testing.assert_close(items.vector, normalise(items.embedding), rtol=0, atol=1e-6)


def test_an_item_has_the_same_vector_as_positive_and_as_index_draw(built: Built) -> None:
    # L17 of the pitfalls: bitwise
    dataset, made = built[0], trainer(built)
    examples = dataset.train.take(np.arange(13))
    batch = made.maker.assemble(examples, examples.item_row[::-1].astype(np.int64), None)
    _, items = made.learner.model.encode_batch(batch, made.learner.sources(batch))
    columns = items.vector[torch.from_numpy(batch.columns)]
    assert torch.equal(columns[:13], columns[13:].flip(0))


# --- the item bias


def test_a_fresh_bias_is_the_log_of_how_often_the_item_was_chosen(built: Built) -> None:
    dataset, made = built[0], trainer(built, shaken=False)
    items = made.learner.model.encode_items(dataset.item_features, made.learner.tables.weights, ITEMS)
    assert items.bias is not None
    bias = items.bias.detach().numpy()
    chosen = dataset.item_counts[: ITEMS - NEVER_CHOSEN]
    assert chosen.all()
    expected = np.log(chosen + 0.5)
    np.testing.assert_allclose(bias[: len(chosen)] - bias[0], expected - expected[0], atol=1e-5)
    np.testing.assert_allclose(bias[len(chosen) :] - bias[0], np.log(0.5) - expected[0], atol=1e-5)  # never chosen


def test_the_content_adds_to_the_bias_of_the_id(built: Built) -> None:
    made = trainer(built, popularity="learned")
    weight = made.learner.model.item.bias
    assert weight is not None
    ids = built[0].item_features["item_id"]
    assert isinstance(ids, Ids)
    own = made.learner.tables.weights["item/item_id#bias"][:, 0].double().numpy()[ids.values]
    expected = own + item_inputs(made, built[0]) @ weight.weight.detach().double().numpy()[0]
    items = made.learner.model.encode_items(built[0].item_features, made.learner.tables.weights, ITEMS)
    assert items.bias is not None
    np.testing.assert_allclose(items.bias.detach().numpy(), expected, atol=1e-5)


def test_without_item_bias_there_is_none_and_no_table_for_it(built: Built) -> None:
    made = trainer(built, item_bias=False)
    assert made.learner.model.encode_items(built[0].item_features, made.learner.tables.weights, ITEMS).bias is None
    assert not any("bias" in name for name in made.learner.tables.weights)
    batch = made.maker.make(0)
    assert {*batch_table_rows(batch), *batch_id_rows(batch, made.learner.model)} == set(made.learner.tables.weights)


# --- the query tower


def query_parts(built: Built, queries: int = 5) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """(embeddings of 13 items, user and context features of some queries), random."""
    generator = torch.Generator().manual_seed(2)
    return torch.randn(13, D, generator=generator), [torch.randn(queries, 8, generator=generator) for _ in range(2)]


def padded(*histories: list[int]) -> torch.Tensor:
    return torch.tensor([line + [-1] * (HISTORY_LAST - len(line)) for line in histories])


@pytest.mark.parametrize("linear_path", [True, False])
def test_a_query_is_its_seed_history_and_features_by_plain_arithmetic(built: Built, linear_path: bool) -> None:
    made = trainer(built, linear_path=linear_path)
    query, (embedding, features) = made.learner.model.query, query_parts(built)
    seed = torch.tensor([3, -1, 12, -1, 0])
    history = padded([5, 6, 5], [1], [], [], [0, 1, 2, 3, 4, 5, 6])
    found = made.learner.model.encode_queries(embedding, seed, history, features).detach().numpy()
    rows = embedding.double().numpy()
    by_age = np.exp(query.pooling.position.detach().double().numpy())
    expected = []
    for i in range(5):
        own = [int(item) for item in history[i] if item >= 0]
        weights = by_age[: len(own)] / by_age[: len(own)].sum() if own else np.zeros(0)
        pooled = sum((weight * rows[item] for weight, item in zip(weights, own, strict=True)), start=np.zeros(D))
        looked_at = rows[seed[i]] if seed[i] >= 0 else np.zeros(D)
        told = [float(seed[i] >= 0), float(bool(own))]
        x = np.concatenate([looked_at, pooled, told, *(feature[i].double().numpy() for feature in features)])
        deep = plain_mlp(query.mlp, x[None])[0]
        if query.seed_map is not None and query.history_map is not None:
            deep = deep + query.seed_map.weight.detach().double().numpy() @ looked_at
            deep = deep + query.history_map.weight.detach().double().numpy() @ pooled
        if query.feature_map is not None:
            deep = deep + query.feature_map.weight.detach().double().numpy() @ x[2 * D + 2 :]
        expected.append(deep)
    assert (query.seed_map is not None) == (query.feature_map is not None) == linear_path
    np.testing.assert_allclose(found, unit(np.array(expected)), atol=1e-5)


def test_a_query_without_seed_and_history_depends_on_its_features_alone(built: Built) -> None:
    made, (embedding, features) = trainer(built), query_parts(built)
    nothing = torch.full((5,), -1)
    found = [
        made.learner.model.encode_queries(known, nothing, padded([], [], [], [], []), features) for known in (embedding, embedding * -3 + 1)
    ]
    assert torch.equal(found[0], found[1])
    assert torch.allclose(found[0].norm(dim=1), torch.ones(5))


def test_a_fresh_query_that_says_nothing_is_a_finite_vector(built: Built) -> None:
    made, (embedding, features) = trainer(built, shaken=False), query_parts(built)
    found = made.learner.model.encode_queries(embedding, torch.full((5,), -1), padded([], [], [], [], []), features)
    assert torch.isfinite(found).all()


def test_history_weights_add_up_to_one_over_those_present(built: Built) -> None:
    made = trainer(built)
    present = torch.tensor([[1, 1, 1, 0, 0, 0, 0], [0, 0, 1, 0, 1, 0, 0], [1] * 7, [0] * 7], dtype=torch.float32)
    weights = made.learner.model.query.pooling.weights(present)
    assert torch.allclose(weights.sum(dim=1), torch.tensor([1.0, 1.0, 1.0, 0.0]))
    assert not weights[present == 0].any()


def test_fresh_recency_weights_fall_with_age_and_without_them_all_are_alike(built: Built) -> None:
    everything = torch.ones(1, HISTORY_LAST)
    recency = trainer(built, shaken=False).learner.model.query.pooling.weights(everything)[0]
    assert (recency.diff() < 0).all()
    # 1 / sqrt(1 + age): the newest weighs sqrt(2) times the one before
    assert (recency[0] / recency[1]).item() == pytest.approx(2**0.5)
    plain = trainer(built, history_pooling="mean")
    assert torch.allclose(plain.learner.model.query.pooling.weights(everything), torch.full((1, HISTORY_LAST), 1 / HISTORY_LAST))
    assert "query.pooling.position" not in plain.learner.parameters


def test_a_query_has_the_same_vector_alone_and_in_any_order(built: Built) -> None:
    made, (embedding, features) = trainer(built), query_parts(built)
    seed, history = torch.tensor([3, -1, 12, -1, 0]), padded([5, 6, 5], [1], [], [], [0, 1, 2])
    together = made.learner.model.encode_queries(embedding, seed, history, features)
    order = torch.tensor([4, 2, 0, 1, 3])
    shuffled = made.learner.model.encode_queries(embedding, seed[order], history[order], [feature[order] for feature in features])
    assert torch.allclose(shuffled, together[order], atol=1e-6)
    alone = made.learner.model.encode_queries(embedding, seed[1:2], history[1:2], [feature[1:2] for feature in features])
    assert torch.allclose(alone, together[1:2], atol=1e-6)


# --- the temperature


def test_the_temperature_is_the_setting_and_not_learned_unless_asked(built: Built) -> None:
    made = trainer(built)
    assert made.learner.model.temperature.item() == pytest.approx(0.1)
    assert "log_temperature" not in made.learner.parameters
    assert "log_temperature" in trainer(built, learn_temperature=True).learner.parameters


@pytest.mark.parametrize(("raw", "shown"), [(-50.0, 0.02), (50.0, 1.0), (-1.0, 0.36787944)])
def test_a_learned_temperature_stays_within_its_bounds(built: Built, raw: float, shown: float) -> None:
    model = trainer(built, learn_temperature=True).learner.model
    with torch.no_grad():
        model.log_temperature.fill_(raw)
        model.keep_temperature_within_bounds()
    assert model.temperature.item() == pytest.approx(shown)


# --- normalise


def test_vectors_come_out_at_length_one_and_zero_stays_zero() -> None:
    found = normalise(torch.tensor([[3.0, 4.0], [0.0, 0.0], [NORM_FLOOR / 2, 0.0]]))
    assert torch.allclose(found, torch.tensor([[0.6, 0.8], [0.0, 0.0], [0.5, 0.0]]))


# --- what nobody sees


OF_USERS: dict[str, Any] = {"users.age": "category", "events.weekday": "category"}


@pytest.mark.parametrize(
    ("features", "model", "is_made"),
    [
        (OF_USERS, {"linear_path": False}, False),
        (OF_USERS, {"linear_path": True}, True),
        (OF_USERS, {"linear_path": False, "cross_layers": 1}, True),
        ({**OF_USERS, "seed": "item"}, {"linear_path": False}, True),
    ],
)
def test_input_embeddings_are_made_only_where_something_sees_them(
    tmp_path: Path, features: dict[str, Any], model: dict[str, Any], is_made: bool
) -> None:
    built = small_dataset(tmp_path, {"query": {"features": features}})
    made = trainer(built, **model)
    learner = made.learner
    batch = learner.maker.make(0)
    _, items = learner.model.encode_batch(batch, learner.sources(batch))
    assert (items.embedding is not None) == is_made
    with torch.no_grad():
        seen = learner.model.encode_items(batch.items.columns, learner.sources(batch), batch.candidates)
    assert seen.embedding is not None
    assert torch.equal(items.vector, seen.vector)
    if items.embedding is not None:
        assert torch.equal(items.embedding, seen.embedding)
    learner.learn(batch)
    assert ("item_norm_by_log_count" in step_facts(learner, batch)) == is_made
