"""How much the towers say beside popularity: planted scales are found, biases are the prior, and nothing else moves."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from small_project import small_dataset

from shortlist.calibration import SCALES, calibrate, likeliest_scale
from shortlist.encode import encode_corpus
from shortlist.learner import Learner
from shortlist.prior import Prior, fit_prior
from shortlist.run import split_validation
from shortlist.towers import BIAS


@pytest.mark.parametrize("planted", [0.25, 0.8, 2.0])
def test_a_planted_scale_is_found(planted: float) -> None:
    random = np.random.default_rng(7)
    queries, items = random.standard_normal((4001, 11), np.float32), random.standard_normal((53, 11), np.float32)
    share = random.dirichlet(np.ones(53))
    logits = planted * (queries @ items.T) / 3.0 + np.log(share)
    chosen = (logits + random.gumbel(size=logits.shape)).argmax(axis=1)  # draws by the softmax
    assert likeliest_scale(queries, items, chosen, Prior(share, {}), 3.0) == pytest.approx(planted, rel=0.12)


def test_towers_that_know_nothing_get_the_least_say() -> None:
    random = np.random.default_rng(2)
    queries, items = random.standard_normal((997, 5), np.float32), 9 * random.standard_normal((31, 5), np.float32)
    chosen = random.integers(0, 31, 997)
    assert likeliest_scale(queries, items, chosen, Prior(np.full(31, 1 / 31), {}), 1.0) == pytest.approx(SCALES[0])


def test_the_biases_become_the_prior_and_the_temperature_its_share(tmp_path: Path) -> None:
    dataset, config = small_dataset(tmp_path)
    config = msgspec.structs.replace(config, model=msgspec.structs.replace(config.model, popularity="recent"))
    fit, validation = split_validation(dataset.train, config.train)
    learner = Learner(dataset, fit, config)
    before = encode_corpus(learner.model, learner.tables.weights, dataset.item_features).vector
    temperature = float(learner.model.temperature)
    found = calibrate(learner, dataset, fit, validation)
    after = encode_corpus(learner.model, learner.tables.weights, dataset.item_features).vector
    np.testing.assert_array_equal(before[:, :-1], after[:, :-1])
    assert found["temperature"] == pytest.approx(temperature / found["scale"], rel=1e-3)
    train = dataset.train
    prior = fit_prior(train.item_row, train.time, train.weight, len(dataset.items))
    chosen = dataset.item_counts > 0
    bias = after[chosen, -1] / found["temperature"]
    expected = np.log(prior.share[chosen])
    np.testing.assert_allclose(bias - bias.mean(), expected - expected.mean(), atol=1e-4)


def test_a_fixed_bias_is_not_learned(tmp_path: Path) -> None:
    dataset, config = small_dataset(tmp_path)
    config = msgspec.structs.replace(config, model=msgspec.structs.replace(config.model, popularity="recent"))
    learner = Learner(dataset, dataset.train, config)
    name = f"item/{learner.model.id_feature}{BIAS}"
    start = learner.tables.weights[name].clone()
    ids = learner.tables.weights[f"item/{learner.model.id_feature}"].clone()
    learner.learn(learner.maker.make(0))
    assert torch.equal(learner.tables.weights[name], start)
    assert not torch.equal(learner.tables.weights[f"item/{learner.model.id_feature}"], ids)
    assert learner.model.item.bias is None


def test_a_model_that_learns_its_biases_is_left_alone(tmp_path: Path) -> None:
    dataset, config = small_dataset(tmp_path)
    config = msgspec.structs.replace(config, model=msgspec.structs.replace(config.model, popularity="learned"))
    learner = Learner(dataset, dataset.train, config)
    before = {name: value.clone() for name, value in learner.weights().items()}
    assert calibrate(learner, dataset, dataset.train, dataset.train) == {}
    assert all(torch.equal(value, before[name]) for name, value in learner.weights().items())
