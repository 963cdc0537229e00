"""Numbers that held-out choices ask for: planted ones are found, slopes are those of an oracle, what is searched obeys them."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import approx_fprime
from small_project import small_config, small_dataset

from shortlist import likeliest as module
from shortlist.calibration import calibrate
from shortlist.config import for_log, overridden
from shortlist.dataset import Dataset
from shortlist.encode import codes_for, encode_corpus, encode_queries
from shortlist.errors import ConfigError
from shortlist.features.content_codes import shown_codes
from shortlist.features.shown_popularity import popularity_factor, shown_popularity
from shortlist.first_choices import AmongNew, believed, beside_words, first_choices, words_alone
from shortlist.held_out import HeldOut, held_out
from shortlist.learner import Learner
from shortlist.likeliest import Calibration, Codes, likeliest
from shortlist.prior import fit_prior
from shortlist.run import settings_key, split_validation
from shortlist.sections import Config
from shortlist.towers import BIAS
from shortlist.unlisted import is_repeat, is_tested, seen_items, unlisted

QUERIES, ITEMS, DIM, WORDS = 4001, 53, 11, 5


def codes(queries: int) -> Codes:
    """Random ones."""
    random = np.random.default_rng(13)
    return Codes(random.standard_normal((queries, WORDS), np.float32) / 2, random.standard_normal((ITEMS, WORDS), np.float32))


def shown(queries: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Seeds and histories, some of which show nothing."""
    random = np.random.default_rng(19)
    seed, history = random.integers(-1, ITEMS, queries), np.sort(random.integers(-ITEMS, ITEMS, (queries, 3)))[:, ::-1]
    seed[::7] = history[::7] = -1
    return seed, np.maximum(history, -1)


def planted(calibration: Calibration, queries: int = QUERIES, seed: int = 7) -> tuple[NDArray[np.float32], ...]:
    """(queries, items, positives, bias, never): choices drawn by the softmax of these numbers, the `codes` of so many queries included."""
    random = np.random.default_rng(seed)
    asked, items = random.standard_normal((queries, DIM), np.float32) / 3, random.standard_normal((ITEMS, DIM), np.float32)
    bias = np.log(random.dirichlet(np.ones(ITEMS))).astype(np.float32)
    never = np.arange(ITEMS) % 7 == 3
    bias[never] = bias.mean()
    published = calibration.popularity * bias + calibration.level * never
    g = shown_popularity((published - published.mean()).astype(np.float32), *shown(queries))
    factor = popularity_factor(np.array([calibration.taste, calibration.usual], np.float32), g)
    logits = calibration.scale * (asked @ items.T) + factor[:, None] * published
    said = codes(queries)
    logits += (calibration.match + calibration.match_of_never * never) * (said.queries @ said.items.T)
    chosen = (logits + random.gumbel(size=logits.shape)).argmax(axis=1)  # draws by the softmax
    return asked, items, chosen, bias, never


@pytest.mark.parametrize("truth", [Calibration(0.25, 1.0, 0.0), Calibration(0.8, 0.4, -2.0), Calibration(2.0, 1.3, 1.0)], ids=str)
def test_planted_numbers_are_found(truth: Calibration) -> None:
    found = likeliest(*planted(truth))
    assert found.scale == pytest.approx(truth.scale, rel=0.12)
    assert found.popularity == pytest.approx(truth.popularity, abs=0.1)
    assert found.level == pytest.approx(truth.level, abs=0.25)


def test_planted_numbers_of_words_are_found() -> None:
    truth = Calibration(0.8, 0.6, -0.5, 0.7, 0.9)
    asked = planted(truth)
    found = likeliest(*asked, codes=codes(QUERIES))
    assert (found.scale, found.popularity, found.level) == pytest.approx((0.8, 0.6, -0.5), abs=0.15)
    assert (found.match, found.match_of_never) == pytest.approx((0.7, 0.9), abs=0.2)
    assert likeliest(*asked).match == 0  # nothing is said of items that do not match by words


@pytest.mark.parametrize("level", [-0.5, -2.0])
def test_a_planted_taste_for_popularity_is_found(level: float) -> None:
    asked = planted(Calibration(0.8, 0.6, level, 0.7, 0.9, taste=0.3, usual=-0.3), 3 * QUERIES)
    said = replace(codes(3 * QUERIES), shown=shown(3 * QUERIES))
    found = likeliest(*asked, codes=said)
    # where g_0 lies is for r = 1 alone to say: what is compared is the factor of a query
    published = 0.6 * asked[3] + level * asked[4]
    g = np.nan_to_num(shown_popularity((published - published.mean()).astype(np.float32), *shown(997)))
    truth, mine = 1 + 0.3 * (g + 0.3), (1 + found.taste * (g - found.usual)) * found.popularity / 0.6
    assert np.abs(mine - truth).mean() < 0.1 * np.abs(truth - 1).mean() + 0.05
    assert (found.match, found.match_of_never) == pytest.approx((0.7, 0.9), abs=0.15)
    without = likeliest(*asked, codes=codes(3 * QUERIES))
    assert (without.taste, without.usual) == (0, 0)


def test_queries_that_show_nothing_leave_the_taste_as_it_was() -> None:
    asked = planted(Calibration(0.8, 0.6, -0.5, 0.7, 0.9), 211)
    nothing = (np.full(211, -1), np.full((211, 3), -1))
    found, plain = likeliest(*asked, codes=replace(codes(211), shown=nothing)), likeliest(*asked, codes=codes(211))
    assert found.taste == pytest.approx(0, abs=1e-6)
    assert found.usual == 0
    assert (found.scale, found.popularity, found.level) == pytest.approx((plain.scale, plain.popularity, plain.level), abs=1e-2)


def test_where_popularity_says_nothing_nobody_has_a_taste_for_it() -> None:
    asked = planted(Calibration(0.8, -0.4, -0.5, 0.7, 0.9), 997)
    assert likeliest(*asked, codes=replace(codes(997), shown=shown(997))) == likeliest(*asked, codes=codes(997))


def test_what_first_choices_say_speaks_where_held_out_choices_are_few() -> None:
    """Of items that nobody chose: with no choice of theirs held out their match is what is believed, less what towers say along with it."""
    queries, items, positive, bias, never = planted(Calibration(0.8, 0.6, -40.0, 0.7, 0.0), 211)
    assert not never[positive].any()
    asked = (queries, items, positive, bias, never)
    told = likeliest(*asked, codes=replace(codes(211), among_new=AmongNew(3.0, 1.5, 0.01)))
    assert told.match + told.match_of_never == pytest.approx(3.0 - 1.5 * told.scale, abs=0.01)
    assert told.match == pytest.approx(0.7, abs=0.3)  # of all others held-out choices speak
    vague = likeliest(*asked, codes=replace(codes(211), among_new=AmongNew(3.0, 1.5, 1e4)))
    alone = likeliest(*asked, codes=codes(211))
    assert (vague.level, vague.match, vague.match_of_never) == pytest.approx((alone.level, alone.match, alone.match_of_never), abs=1e-3)


def test_towers_that_know_nothing_get_little_say() -> None:
    queries, items, positive, bias, never = planted(Calibration(0.0, 1.0, 0.0), 997)
    assert likeliest(queries, 9 * items, positive, bias, never).scale < 0.05


def test_a_level_that_no_held_out_choice_speaks_for_is_low_and_finite() -> None:
    """With seven of 200 queries' chances spread over them and none chosen: some nats down, not to the end of the numbers."""
    queries, items, positive, bias, never = planted(Calibration(1.0, 1.0, -40.0), 200)
    assert not never[positive].any()
    assert -12 < likeliest(queries, items, positive, bias, never).level < -3


def test_without_items_never_chosen_their_level_stays() -> None:
    queries, items, positive, bias, never = planted(Calibration(1.0, 1.0, 0.0), 200)
    assert likeliest(queries, items, positive, bias, np.zeros_like(never)).level == pytest.approx(0.0, abs=1e-6)


def test_what_no_list_holds_is_no_alternative() -> None:
    """Items of which half of the queries make nothing because they know them: left out, the planted numbers come back."""
    random = np.random.default_rng(3)
    truth = Calibration(1.5, 1.0, -1.0)
    queries, items, _, bias, never = planted(truth)
    known = [random.choice(ITEMS, 11, replace=False) if row % 2 else np.array([-1]) for row in range(QUERIES)]
    logits = truth.scale * (queries @ items.T) + truth.popularity * bias + truth.level * never
    for row, rows in enumerate(known):
        logits[row, rows[rows >= 0]] = -np.inf
    positive = (logits + random.gumbel(size=logits.shape)).argmax(axis=1)
    found = likeliest(queries, items, positive, bias, never, known)
    assert found.scale == pytest.approx(truth.scale, rel=0.12)
    assert found.level == pytest.approx(truth.level, abs=0.25)


@pytest.mark.parametrize(
    ("point", "among_new"),
    [
        ([0.3, 0.7, -1.1], None),
        ([0.3, 0.7, -1.1, 1.9, -0.6], None),
        ([0.3, 0.7, -1.1, 1.9, -0.6], AmongNew(4.0, 0.8, 0.3)),
        ([0.3, 0.7, -1.1, 1.9, -0.6, 0.4], AmongNew(4.0, 0.8, 0.3)),
    ],
    ids=["without words", "with words", "with what first choices say", "with taste"],
)
def test_slopes_and_curvature_are_those_of_an_oracle_whatever_the_blocks(
    monkeypatch: pytest.MonkeyPatch, point: list[float], among_new: AmongNew | None
) -> None:
    queries, items, positive, bias, never = planted(Calibration(1.2, 0.8, -1.0), 101)
    known = [np.array([row % ITEMS, (3 * row) % ITEMS, -1]) for row in range(101)]
    bias = bias - bias.mean()
    said = replace(codes(101), among_new=among_new, shown=shown(101) if len(point) == 6 else None) if len(point) > 3 else None
    deviation = np.array([1, 1, 3, 5, 5, 1])
    g = shown_popularity(bias - np.float32(1.7) * never + np.float32(1.7 * never.mean()), *shown(101))
    g = np.where(np.isnan(g), 0, g - np.nanmean(g))

    def oracle(point: NDArray[np.float64]) -> float:
        away = point - [0, 1, 0, 0, 0, 0][: len(point)]
        total = ((away / deviation[: len(point)]) ** 2).sum() / 2
        if among_new is not None:
            total += ((point[3] + point[4] + np.exp(point[0]) * 0.8 - 4.0) / 0.3) ** 2 / 2
        for row, own in enumerate(positive):
            factor = 1 + point[5] * g[row] if len(point) == 6 else 1
            logits = np.exp(point[0]) * (items.astype(float) @ queries[row]) + factor * (point[1] * bias.astype(float) + point[2] * never)
            if said is not None:
                logits += (point[3] + point[4] * never) * (said.items.astype(float) @ said.queries[row])
            open_to = [item for item in range(ITEMS) if item == own or item not in known[row]]
            total += np.log(np.exp(logits[open_to]).sum()) - logits[own]
        return float(total) / 101

    monkeypatch.setattr(module, "_CELLS_AT_ONCE", 7 * ITEMS)
    problem = module._Likelihood(queries, items, positive, bias, never, known, said)
    problem.look_at_shown(level=-1.7)
    at = np.array(point)
    value, slope = problem.value(at)
    assert value == pytest.approx(oracle(at), rel=1e-5)
    np.testing.assert_allclose(slope, approx_fprime(at, oracle, 1e-5), atol=2e-4)
    curvature = np.array([approx_fprime(at, lambda near, part=part: problem.value(near)[1][part], 1e-3) for part in range(len(at))])
    np.testing.assert_allclose(problem.hessian(at), curvature, rtol=2e-2, atol=2e-3)


def test_products_that_are_kept_from_pass_to_pass_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [np.array(point) for point in ([0.3, 0.7, -1.1, 1.9, -0.6], [0.1, 0.8, -1.4, 1.2, 0.3], [0.2, 0.7, -1.3, 1.1, 0.1])]
    monkeypatch.setattr(module, "_CELLS_AT_ONCE", 7 * ITEMS)
    found = []
    for room, blocks in ((0, 0), (23 * ITEMS, 3), (1 << 26, 15)):
        monkeypatch.setattr(module, "_CELLS_KEPT", room)
        problem = module._Likelihood(*planted(Calibration(1.2, 0.8, -1.0), 101), None, codes(101))
        found.append([(value, slope.tolist()) for value, slope in map(problem.value, points)])
        assert len(problem._kept) == blocks
    assert found[0] == found[1] == found[2]


def test_no_point_is_computed_twice_and_few_are(monkeypatch: pytest.MonkeyPatch) -> None:
    points, sums = [], module._Likelihood._sums

    def noted(problem: module._Likelihood, factors: NDArray[np.float64]) -> Any:
        points.append(tuple(factors))
        return sums(problem, factors)

    monkeypatch.setattr(module._Likelihood, "_sums", noted)
    likeliest(*planted(Calibration(1.6, 0.7, -1.5)), codes=codes(QUERIES))
    assert len(points) == len(set(points)) <= 9


# --- what becomes of it in a model


def learned(folder: Path, popularity: str, **train: object) -> tuple[Learner, HeldOut, Config]:
    """A learner after some steps, and what was held out of it; its dataset's last items were never chosen."""
    sections = {"model": {"popularity": popularity}, "negatives": {"index_from": "chosen"}, "train": train}
    dataset, config = small_dataset(folder, {**sections, "evaluate": {"seen_items": "rank"}})
    fit, validation = split_validation(dataset.train, config.train)
    learner = Learner(dataset, fit, config)
    for step in range(5):
        learner.learn(learner.maker.make(step))
    kept = held_out(learner, fit, validation)
    return learner, kept, config


def scores(learner: Learner, dataset: Dataset) -> tuple[NDArray[np.float64], ...]:
    """(N, M) what is searched, over T: of the towers, (M,) of the bias, (N, M) of words in common, and (N,) what popularity counts."""
    model, tables = learner.model, learner.tables.weights
    corpus = encode_corpus(model, tables, dataset.item_features, codes=dataset.item_codes)
    queries = encode_queries(model, tables, dataset.train.queries, user_features=dataset.user_features, embedding=corpus.embedding)
    temperature, dim = float(model.temperature.detach()), model.settings.hidden[-1]
    queries, items = queries.astype(float), corpus.vector / temperature
    return queries[:, :dim] @ items[:, :dim].T, items[:, dim], queries[:, dim + 1 :] @ items[:, dim + 1 :].T, queries[:, dim]


@pytest.mark.parametrize("popularity", ["learned", "recent"])
def test_what_is_searched_has_the_numbers_in_it(tmp_path: Path, popularity: str) -> None:
    learner, kept, config = learned(tmp_path, popularity)
    dataset = learner.dataset
    similarity, bias, words, factor = scores(learner, dataset)
    assert not words.any() and (factor == 1).all()
    found = calibrate(learner, kept, config.evaluate)
    assert found["scale"] != 1
    assert found["level"] != 0
    similarity_after, bias_after, words_after, factor = scores(learner, dataset)
    np.testing.assert_allclose(similarity_after, found["scale"] * similarity, rtol=2e-3, atol=1e-3)
    never = dataset.item_counts == 0
    if popularity == "recent":
        prior = fit_prior(dataset.train.item_row, dataset.train.time, dataset.train.weight, len(dataset.items))
        bias = np.log(prior.share)
        bias[never] = np.log(prior.share[never].mean())
    expected = found["popularity"] * bias + found["level"] * never
    np.testing.assert_allclose(bias_after - bias_after.mean(), expected - expected.mean(), atol=2e-3)
    rows = (dataset.train.queries.seed_row, dataset.train.queries.newest_first(learner.model.history_last))
    of_shown = shown_codes(dataset.item_codes, *rows)
    assert min(abs(found["match"]), abs(found["match_of_never"])) > 0
    counts = found["match"] + found["match_of_never"] * never
    np.testing.assert_allclose(words_after, counts * (of_shown @ dataset.item_codes.T), atol=1e-3)
    assert (found["taste"] != 0) is (popularity == "recent")
    taste = np.array([found["taste"], found["usual"]], np.float32)
    expected = popularity_factor(taste, shown_popularity((bias_after - bias_after.mean()).astype(np.float32), *rows))
    np.testing.assert_allclose(factor, expected, atol=1e-4)


@pytest.mark.parametrize("train", [{"validation_fraction": 0.0}, {"calibrate": False}], ids=str)
def test_a_prior_is_set_though_nothing_is_fitted(tmp_path: Path, train: dict[str, object]) -> None:
    learner, kept, config = learned(tmp_path, "recent", **train)
    temperature = float(learner.model.temperature)
    found = calibrate(learner, kept, config.evaluate)
    assert (found["scale"], found["popularity"], found["level"]) == (1, 1, 0)
    assert float(learner.model.temperature) == temperature
    chosen = learner.dataset.item_counts > 0
    train = learner.dataset.train
    expected = np.log(fit_prior(train.item_row, train.time, train.weight, len(chosen)).share)[chosen]
    bias = scores(learner, learner.dataset)[1][chosen]
    np.testing.assert_allclose(bias - bias.mean(), expected - expected.mean(), atol=1e-4)


def test_what_is_switched_off_changes_nothing(tmp_path: Path) -> None:
    learner, kept, config = learned(tmp_path, "learned", calibrate=False)
    before = {name: value.clone() for name, value in learner.weights().items()}
    assert calibrate(learner, kept, config.evaluate) == {}
    assert all(torch.equal(value, before[name]) for name, value in learner.weights().items())


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


@pytest.mark.parametrize("popularity", ["learned", "recent"])
def test_an_item_that_only_held_out_choices_chose_is_published_as_one_that_nobody_chose(tmp_path: Path, popularity: str) -> None:
    """Its id row would be the noise that it started as. With recent popularity its own bias is known all the same."""
    sections = {"model": {"popularity": popularity}, "negatives": {"index_from": "chosen"}, "evaluate": {"seen_items": "rank"}}
    dataset, config = small_dataset(tmp_path, sections)
    only_held_out = dataset.train.item_row < 5
    fit, rest = (dataset.train.take(np.flatnonzero(chosen)) for chosen in (~only_held_out, only_held_out))
    learner = Learner(dataset, fit, config)
    learner.learn(learner.maker.make(0))
    name = learner.model.id_feature
    ids = dataset.item_features[str(name)].values[:5].astype(np.int64)  # type: ignore[union-attr]
    before = learner.tables.weights[f"item/{name}"].clone()
    found = calibrate(learner, held_out(learner, fit, rest), config.evaluate)
    rows, biases = learner.tables.weights[f"item/{name}"], learner.tables.weights[f"item/{name}{BIAS}"]
    sums = learner.tables.sums[f"item/{name}"][torch.from_numpy(ids)]
    still = (sums == config.train.adagrad_start).all(dim=1)
    assert still.any()
    for row, is_still in zip(ids.tolist(), still.tolist(), strict=True):
        # one that was looked at as a seed or in a history has learned something in that role, and keeps it
        assert torch.equal(rows[row], rows[1 + row % 3] if is_still else before[row])
        assert torch.equal(biases[row], biases[1 + row % 3]) is (popularity == "learned")
    assert found["level"] != 0


# --- the choices held out


def test_an_item_that_only_held_out_choices_chose_is_shown_as_unknown(tmp_path: Path) -> None:
    dataset, config = small_dataset(tmp_path)
    learner = Learner(dataset, dataset.train, config)
    fit = dataset.train.take(np.flatnonzero(dataset.train.item_row >= 5))  # items 0..4 are held out
    kept = held_out(learner, fit, dataset.train)
    assert kept.never.nonzero()[0].tolist() == [0, 1, 2, 3, 4, *range(46, 53)]
    name = dataset.item_encoder.id_feature()
    assert name is not None
    shown, own = kept.dataset.item_features[name].values, dataset.item_features[name].values  # type: ignore[union-attr]
    assert set(shown[:5].tolist()) <= {1, 2, 3}  # three unknown rows
    np.testing.assert_array_equal(shown[5:], own[5:])


@pytest.mark.parametrize(("index_from", "free"), [("chosen", True), ("corpus", False)])
def test_the_loss_is_that_of_the_best_level_where_no_negative_told_it(tmp_path: Path, index_from: str, free: bool) -> None:
    dataset, config = small_dataset(tmp_path, {"negatives": {"index_from": index_from, "unchosen_weight": 1.0}})
    learner = Learner(dataset, dataset.train, config)
    fit = dataset.train.take(np.flatnonzero(dataset.train.item_row >= 5))
    kept = held_out(learner, fit, dataset.train)
    assert kept.level_free is free
    tables, found = learner.tables.weights, kept.loss(learner.model, learner.tables.weights)
    corpus = encode_corpus(learner.model, tables, kept.dataset.item_features)
    queries = encode_queries(learner.model, tables, dataset.train.queries, user_features=dataset.user_features, embedding=corpus.embedding)
    logits = queries.astype(float) @ corpus.vector.T / float(learner.model.temperature)
    own = np.arange(len(logits)), dataset.train.item_row

    def loss(level: float) -> float:
        moved = logits + level * kept.never
        return float((np.log(np.exp(moved).sum(axis=1)) - moved[own]).mean())

    least = min(loss(level) for level in np.arange(-4, 4, 0.01)) if free else loss(0.0)
    assert found == pytest.approx(least, abs=1e-4)
    assert min(loss(0.0), loss(-4.0), loss(4.0)) > least or not free


def test_no_level_is_free_where_nothing_will_set_it(tmp_path: Path) -> None:
    dataset, config = small_dataset(tmp_path, {"negatives": {"index_from": "chosen"}, "train": {"calibrate": False}})
    assert not held_out(Learner(dataset, dataset.train, config), dataset.train, dataset.train).level_free


def test_a_run_that_is_calibrated_is_another_one_where_lists_leave_out_something_else(tmp_path: Path) -> None:
    _, config = small_dataset(tmp_path)
    others = [overridden(config, [f"evaluate.{setting}"]) for setting in ("seen_items=exclude_seed", "repeats=drop")]
    assert len({settings_key(config), *(settings_key(other) for other in others)}) == 3
    raw = [overridden(other, ["train.calibrate=false"]) for other in (config, *others)]
    assert len({settings_key(other) for other in raw}) == 1


def test_levels_are_free_unless_uniform_draws_bring_items_that_nobody_chose(tmp_path: Path) -> None:
    for (kind, index_from, size), free in {
        ("mixed", "corpus", 23): False,
        ("mixed", "chosen", 23): True,
        ("mixed", "corpus", 0): True,
        ("full", "corpus", 23): False,
    }.items():
        dataset, config = small_dataset(tmp_path, {"negatives": {"kind": kind, "index_from": index_from, "index_batch_size": size}})
        negatives = Learner(dataset, dataset.train, config).negatives
        assert negatives.bring_unchosen is not free
        drawn = {item for number in range(20) for item in negatives.sample(np.random.default_rng(number)).tolist()}
        assert bool(drawn & set(range(46, 53))) is not free


@pytest.mark.parametrize(
    ("sections", "examples", "index_from"),
    [
        ({}, 30_001, "chosen"),
        ({}, 30_000, "corpus"),  # a small log holds out too few
        ({}, 9, "corpus"),  # nothing can be held out
        ({"train": {"calibrate": False}}, 30_001, "corpus"),
        ({"train": {"validation_fraction": 0.0}}, 30_001, "corpus"),
        ({"model": {"item_bias": False}}, 30_001, "corpus"),
        ({"negatives": {"kind": "full"}}, 30_001, "corpus"),
        ({"negatives": {"mined_from": "store"}}, 30_001, "corpus"),
        ({"item": {"features": {"kind": "category"}}}, 30_001, "corpus"),  # no ids
        ({"negatives": {"index_from": "corpus"}}, 30_001, "corpus"),
        ({"train": {"calibrate": False}, "negatives": {"index_from": "chosen"}}, 30_001, "chosen"),  # what is set explicitly stays
    ],
    ids=str,
)
def test_uniform_negatives_come_from_chosen_items_where_a_level_can_be_found(
    tmp_path: Path, sections: dict[str, dict[str, object]], examples: int, index_from: str
) -> None:
    config = small_config(tmp_path, sections)
    assert for_log(config, examples).negatives.index_from == index_from


@pytest.mark.parametrize(
    ("sections", "examples", "width"),
    [
        ({}, 100_000, 512),
        ({}, 100_001, 0),  # enough to learn what words mean
        ({}, 9, 0),  # nothing can be held out that would say what matches count
        ({"train": {"calibrate": False}}, 601, 0),
        ({"train": {"validation_fraction": 0.0}}, 601, 0),
        ({"model": {"item_bias": False}}, 601, 0),
        ({"model": {"item_tower": "table"}}, 601, 0),
        ({"item": {"features": {"item_id": "id", "price": "number"}}}, 601, 0),  # no word is said of any item
        ({"item": {"features": {"kind": "category"}}}, 601, 0),  # no ids
        ({"query": {"features": {"users.age": "category"}}}, 601, 0),  # queries show no item
        ({"model": {"match_dim": 8}}, 100_001, 8),  # what is set explicitly stays
        ({"model": {"match_dim": 0}}, 601, 0),
    ],
    ids=str,
)
def test_items_match_by_words_where_calibration_can_say_what_that_counts(
    tmp_path: Path, sections: dict[str, dict[str, object]], examples: int, width: int
) -> None:
    assert for_log(small_config(tmp_path, sections), examples).model.match_dim == width


@pytest.mark.parametrize(
    ("sections", "why"),
    [
        ({"train": {"calibrate": False}}, "needs choices held out"),
        ({"train": {"validation_fraction": 0.0}}, "needs choices held out"),
        ({"model": {"item_bias": False}}, "needs choices held out"),
        ({"item": {"features": {"item_id": "id"}}}, "matches items by words"),
        ({"model": {"match_dim": 1}}, "must be 2 or more"),
    ],
    ids=str,
)
def test_matches_that_nothing_could_count_are_refused(tmp_path: Path, sections: dict[str, dict[str, object]], why: str) -> None:
    sections = {**sections, "model": {"match_dim": 8, **sections.get("model", {})}}
    with pytest.raises(ConfigError, match=rf"model\.match_dim {why}"):
        small_config(tmp_path, sections)
    small_config(tmp_path, {"model": {"match_dim": 8}, "item": {"features": {}}})  # features are proposed later


def test_a_model_that_matches_needs_the_codes(tmp_path: Path) -> None:
    dataset, config = small_dataset(tmp_path)
    learner = Learner(dataset, dataset.train, config)
    with pytest.raises(ValueError, match="match_dim = 512 needs a dataset with content codes"):
        codes_for(learner.model, replace(dataset, item_codes=None))


def test_choices_that_are_not_judged_are_not_looked_at(tmp_path: Path) -> None:
    """Where lists leave out what a query knows, a repeat could not be hit; nor is what it knows an alternative to what it chose."""
    learner, kept, config = learned(tmp_path, "learned")
    settings = msgspec.structs.replace(config.evaluate, seen_items="exclude")
    examples = kept.examples.take(np.flatnonzero(~is_repeat(kept.examples) & (kept.examples.weight > 0)))
    assert 20 < len(examples) < len(kept.examples)
    model, tables, dataset = learner.model, learner.tables.weights, kept.dataset
    corpus = encode_corpus(model, tables, dataset.item_features, codes=dataset.item_codes)
    queries = encode_queries(model, tables, examples.queries, user_features=dataset.user_features, embedding=corpus.embedding)
    temperature, dim = np.float32(model.temperature.detach()), model.settings.hidden[-1]
    bias = corpus.vector[:, dim] / temperature
    asked = queries[:, :dim] / temperature, corpus.vector[:, :dim], examples.item_row.astype(np.int64), bias, kept.never
    said = Codes(queries[:, dim + 1 :], dataset.item_codes)
    left_out = seen_items(examples.queries)
    expected = likeliest(*asked, left_out, codes=said)
    found = calibrate(learner, kept, settings)
    assert (found["scale"], found["popularity"], found["level"]) == pytest.approx(
        (expected.scale, expected.popularity, expected.level), rel=1e-3
    )
    assert likeliest(*asked, codes=said).scale != pytest.approx(expected.scale, rel=1e-2)


@pytest.mark.parametrize("seen_items", ["rank", "exclude_seed"])
def test_first_choices_are_asked_where_popularity_is_no_part_of_words(tmp_path: Path, seen_items: Literal["rank", "exclude_seed"]) -> None:
    learner, kept, config = learned(tmp_path, "recent")
    settings = msgspec.structs.replace(config.evaluate, seen_items=seen_items)
    model, tables, dataset = learner.model, learner.tables.weights, kept.dataset
    examples = kept.examples.take(np.flatnonzero((kept.examples.weight > 0) & is_tested(kept.examples, settings)))
    corpus = encode_corpus(model, tables, dataset.item_features, codes=dataset.item_codes)
    queries = encode_queries(model, tables, examples.queries, user_features=dataset.user_features, embedding=corpus.embedding)
    temperature, dim, codes = np.float32(model.temperature.detach()), model.settings.hidden[-1], dataset.item_codes
    assert codes is not None
    choices = first_choices(kept.fit, codes, model.history_last, settings)
    assert choices is not None
    alone = words_alone(choices, codes)
    assert alone is not None
    towers = {"queries": queries[:, :dim] / temperature, "items": corpus.vector[:, :dim]}
    left_out = unlisted(examples.queries, settings)
    beta = beside_words(alone[0], queries[:, dim + 1 :], codes, **towers, new=kept.never, left_out=left_out)
    found = calibrate(learner, kept, settings)["among_new"]
    assert found == pytest.approx(asdict(believed(*alone, beta)), rel=1e-4)


def test_first_choices_are_not_asked_of_learned_popularity_nor_without_new_items(tmp_path: Path) -> None:
    learner, kept, config = learned(tmp_path, "learned")
    assert "among_new" not in calibrate(learner, kept, config.evaluate)
    learner, kept, config = learned(tmp_path, "recent")
    assert "among_new" not in calibrate(learner, replace(kept, never=np.zeros_like(kept.never)), config.evaluate)
