"""The loss against hand numbers, a slow oracle, its closed gradient, and the two property tests that wrong designs fail."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from shortlist.errors import ShapeError
from shortlist.losses import expected_count_loss, full_softmax_loss

Floats = NDArray[np.float64]

# B = 2 queries, C = 3 candidates, T = 1/2: the logits are [[1, .4, -.2], [.2, .8, .6]], the counts 2, 1/2 and 4
SIMILARITY = torch.tensor([[0.5, 0.2, -0.1], [0.1, 0.4, 0.3]])
LOG_N = torch.log(torch.tensor([2.0, 0.5, 4.0]))
ITEMS = torch.tensor([7, 8, 9])
# row 0: log(e^1 + e^.4 / .5 + e^-.2 / 4) - 1  = log(2.718282 + 2.983649 + .204683) - 1  = 1.776073 - 1  = .776073
# row 1: log(e^.8 + e^.2 / 2  + e^.6  / 4) - .8 = log(2.225541 +  .610701 + .455530) - .8 = 1.191426 - .8 = .391426
ROW_LOSSES = (0.776073, 0.391426)


def loss_of(similarity: torch.Tensor, **changed: torch.Tensor | float | None) -> torch.Tensor:
    return expected_count_loss(similarity, **{"temperature": 0.5, "log_n": LOG_N, "item_row": ITEMS, **changed})  # type: ignore[arg-type]


# --- hand numbers


def test_the_loss_is_the_mean_of_the_row_losses_by_hand() -> None:
    assert loss_of(SIMILARITY).item() == pytest.approx(sum(ROW_LOSSES) / 2, abs=2e-6)


def test_weights_weigh_the_rows() -> None:
    weighted = loss_of(SIMILARITY, weight=torch.tensor([3.0, 1.0])).item()
    assert weighted == pytest.approx((3 * ROW_LOSSES[0] + ROW_LOSSES[1]) / 4, abs=2e-6)
    alone = loss_of(SIMILARITY, weight=torch.tensor([0.0, 0.7])).item()
    assert alone == pytest.approx(ROW_LOSSES[1], abs=2e-6)


def test_weights_of_zero_everywhere_give_zero_and_no_gradient() -> None:
    similarity = SIMILARITY.clone().requires_grad_()
    loss = loss_of(similarity, weight=torch.zeros(2))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0.0
    assert similarity.grad is not None and not similarity.grad.any()


def test_a_bias_is_added_in_nats_after_the_temperature() -> None:
    # a bias of .4 nats is a similarity of .2 at T = 1/2
    biased = loss_of(SIMILARITY, bias=torch.tensor([0.0, 0.4, 0.0]))
    assert biased.item() == pytest.approx(loss_of(SIMILARITY + torch.tensor([0.0, 0.2, 0.0])).item(), abs=1e-6)


def test_an_accidental_hit_is_masked_in_its_own_row_alone() -> None:
    # column 2 is item 7, row 0's positive: row 0 loses it, row 1 keeps it
    loss = loss_of(SIMILARITY, item_row=torch.tensor([7, 8, 7])).item()
    row_0 = math.log(math.exp(1) + math.exp(0.4) / 0.5) - 1  # = .740806
    assert loss == pytest.approx((row_0 + ROW_LOSSES[1]) / 2, abs=2e-6)


def test_another_temperature_is_another_loss() -> None:
    assert loss_of(SIMILARITY, temperature=0.25).item() != loss_of(SIMILARITY).item()
    assert loss_of(SIMILARITY, temperature=torch.tensor(0.5)).item() == loss_of(SIMILARITY).item()


# --- oracle


def slow_loss(similarity: Floats, temperature: float, log_n: Floats, items: list[int], weight: list[float], bias: Floats) -> float:
    total = 0.0
    for i in range(len(similarity)):
        logits = [similarity[i][j] / temperature + bias[j] for j in range(len(items))]
        denominator = math.exp(logits[i])
        for j in range(len(items)):
            if items[j] != items[i]:
                denominator += math.exp(logits[j] - log_n[j])
        total += weight[i] * (math.log(denominator) - logits[i])
    return total / sum(weight)


@pytest.mark.parametrize("temperature", [0.07, 1.0, 3.0])
def test_the_loss_equals_a_slow_oracle_at_unequal_prime_sizes(temperature: float) -> None:
    queries, columns, dim, corpus = 5, 11, 3, 7
    rng = np.random.default_rng(columns)
    u, v = rng.standard_normal((queries, dim)), rng.standard_normal((columns, dim))
    similarity = (u @ v.T / dim).astype(np.float32)
    items = rng.integers(0, corpus, columns).tolist()  # 11 columns of 7 items: some are accidental hits
    log_n, bias = rng.standard_normal(columns), rng.standard_normal(columns)
    weight = rng.random(queries).tolist()
    got = expected_count_loss(
        torch.from_numpy(similarity),
        temperature=temperature,
        log_n=torch.from_numpy(log_n).float(),
        item_row=torch.tensor(items),
        weight=torch.tensor(weight),
        bias=torch.from_numpy(bias).float(),
    )
    assert got.item() == pytest.approx(slow_loss(similarity.astype(float), temperature, log_n, items, weight, bias), rel=2e-6)


def test_with_every_item_of_the_corpus_once_the_loss_is_the_full_softmax() -> None:
    similarity = torch.randn(1, 13, generator=torch.Generator().manual_seed(1))
    loss = expected_count_loss(similarity, temperature=0.3, log_n=torch.zeros(13), item_row=torch.arange(13))  # each n_j = 1
    assert loss.item() == pytest.approx(full_softmax_loss(similarity / 0.3, torch.tensor([0])).item(), rel=1e-6)


def test_the_full_softmax_loss_is_minus_the_log_share_of_the_positive() -> None:
    # shares 1/6, 2/6, 3/6 and 3/10, 2/10, 5/10
    logits = torch.log(torch.tensor([[1.0, 2.0, 3.0], [3.0, 2.0, 5.0]]))
    rows = torch.tensor([2, 0])
    assert full_softmax_loss(logits, rows).item() == pytest.approx((math.log(2) + math.log(10 / 3)) / 2, rel=1e-6)
    weighted = full_softmax_loss(logits, rows, torch.tensor([1.0, 3.0])).item()
    assert weighted == pytest.approx((math.log(2) + 3 * math.log(10 / 3)) / 4, rel=1e-6)


# --- gradient


def gradient(similarity: torch.Tensor, **changed: torch.Tensor | float | None) -> Floats:
    leaf = similarity.clone().requires_grad_()
    loss_of(leaf, **changed).backward()  # type: ignore[no-untyped-call]
    assert leaf.grad is not None
    return leaf.grad.double().numpy()


def test_the_gradient_is_the_share_of_each_column_less_one_for_the_positive() -> None:
    weight, logits = np.array([3.0, 1.0]), SIMILARITY.double().numpy() / 0.5
    terms = np.exp(logits) / np.array([2.0, 0.5, 4.0])
    terms[[0, 1], [0, 1]] = np.exp(logits[[0, 1], [0, 1]])  # the positive is not corrected
    share = terms / terms.sum(axis=1, keepdims=True)
    share[[0, 1], [0, 1]] -= 1
    expected = share * (weight / weight.sum())[:, None] / 0.5
    np.testing.assert_allclose(gradient(SIMILARITY, weight=torch.tensor([3.0, 1.0])), expected, rtol=1e-5, atol=1e-7)


def test_a_masked_column_has_probability_zero() -> None:
    items = torch.tensor([7, 8, 7])
    found = gradient(SIMILARITY, item_row=items)
    assert found[0, 2] == 0.0  # exactly: item 7 is row 0's positive
    assert found[1, 2] != 0.0  # and stays a negative of row 1, whose item is another
    moved = SIMILARITY.clone()
    moved[0, 2] += 100.0
    assert loss_of(moved, item_row=items).item() == loss_of(SIMILARITY, item_row=items).item()


def test_when_all_positives_are_one_item_only_other_items_are_negatives() -> None:
    similarity = torch.tensor([[0.3, 0.9, 0.1, 0.2], [0.5, 0.2, 0.4, 0.1], [0.0, 0.1, 0.6, 0.7]])
    log_n = torch.log(torch.tensor([2.0, 2.0, 2.0, 0.5]))
    found = gradient(similarity, temperature=1.0, log_n=log_n, item_row=torch.tensor([4, 4, 4, 6]))
    assert not found[np.array([[0, 1, 1, 0], [1, 0, 1, 0], [1, 1, 0, 0]], bool)].any()
    # with one other positive, every row has nothing to be compared with: loss 0
    assert loss_of(similarity[:, :3], log_n=log_n[:3], item_row=torch.tensor([4, 4, 4])).item() == 0.0


def test_the_gap_between_logits_that_differ_only_in_their_counts_is_the_log_of_the_ratio_at_every_temperature() -> None:
    # L2 of the pitfalls: the shares of columns 1 and 2, of equal similarity, stand as 1/n_1 : 1/n_2
    similarity = torch.tensor([[0.5, 0.2, 0.2]])
    for temperature in (0.02, 0.1, 1.0, 5.0):
        found = gradient(similarity, temperature=temperature, log_n=torch.log(torch.tensor([1.0, 3.0, 0.2])))
        assert math.log(found[0, 2] / found[0, 1]) == pytest.approx(math.log(3.0 / 0.2), abs=2e-5)


def test_counts_of_five_and_of_a_billionth_pass_unchanged() -> None:
    # L3 of the pitfalls. T = 1, all similarities 0: loss = log(1 + 1/5 + 1e9)
    log_n = torch.tensor([0.0, math.log(5.0), math.log(1e-9)])
    loss = loss_of(torch.zeros(1, 3), temperature=1.0, log_n=log_n).item()
    assert loss == pytest.approx(math.log(1.2 + 1e9), rel=1e-6)
    assert loss_of(torch.zeros(1, 2), temperature=1.0, log_n=log_n[:2], item_row=ITEMS[:2]).item() == pytest.approx(math.log(1.2), rel=1e-6)


def test_the_gradient_equals_the_corrected_logq_form_of_khrylchenko() -> None:
    # RecSys'25: sg(1 - P^) * (-s_y + logsumexp_j(s_j - log Q'_j)), P^ = e^s_y / (e^s_y + (1/n) sum_j e^(s_j - log Q'_j)),
    # over n negatives that are not y; its counts are n Q'_j
    generator = torch.Generator().manual_seed(3)
    logits, negatives = torch.randn(1, 8, generator=generator, dtype=torch.float64), 7
    log_q = torch.log_softmax(torch.randn(8, generator=generator, dtype=torch.float64), 0)
    theirs = logits.clone().requires_grad_()
    corrected = torch.logsumexp(theirs[0, 1:] - log_q[1:], 0)
    positive = theirs[0, 0]
    share = torch.sigmoid(positive - (corrected - math.log(negatives))).detach()
    ((1 - share) * (corrected - positive)).backward()  # type: ignore[no-untyped-call]
    assert theirs.grad is not None
    ours = gradient(logits.float(), temperature=1.0, log_n=(log_q + math.log(negatives)).float(), item_row=torch.arange(8))
    np.testing.assert_allclose(ours, theirs.grad.numpy(), atol=3e-7)


# --- edges


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_logits_of_ten_thousand_stay_finite(sign: float) -> None:
    similarity = sign * torch.tensor([[1e4, -1e4, 0.0], [1e4, -1e4, 1e4]])
    assert math.isfinite(loss_of(similarity, temperature=1.0).item())
    assert np.isfinite(gradient(similarity, temperature=1.0)).all()


def test_without_index_draws_the_batch_is_square() -> None:
    # row 0: log(e^1 + e^.4 / .5) - 1 = .740806; row 1: log(e^.8 + e^.2 / 2) - .8 = .242480
    loss = loss_of(SIMILARITY[:, :2], log_n=LOG_N[:2], item_row=ITEMS[:2]).item()
    assert loss == pytest.approx((0.740806 + 0.242480) / 2, abs=2e-6)


def test_one_query_with_index_draws_alone_learns() -> None:
    # B = 1, B' = 2: row 0 of the hand numbers
    assert loss_of(SIMILARITY[:1]).item() == pytest.approx(ROW_LOSSES[0], abs=2e-6)


def test_one_query_without_any_negative_has_no_loss_even_where_its_count_is_zero() -> None:
    loss = expected_count_loss(torch.tensor([[0.3]]), temperature=0.1, log_n=torch.tensor([-math.inf]), item_row=torch.tensor([2]))
    assert loss.item() == 0.0


def test_half_precision_similarities_are_summed_in_single_precision() -> None:
    assert loss_of(SIMILARITY.bfloat16()).dtype == torch.float32


# --- errors


def test_fewer_columns_than_queries_are_refused_with_both_numbers() -> None:
    with pytest.raises(ShapeError, match="C >= B: got 2 columns for 3 queries"):
        loss_of(torch.zeros(3, 2), log_n=torch.zeros(2), item_row=torch.arange(2))


def test_one_value_per_candidate_is_needed() -> None:
    with pytest.raises(ShapeError, match=r"got 2 and 3 for 3\. Did you append the uniform negatives' values"):
        loss_of(SIMILARITY, log_n=torch.zeros(2))
    with pytest.raises(ShapeError, match="got 3 and 2 for 3"):
        loss_of(SIMILARITY, item_row=torch.arange(2))


def test_a_weight_or_bias_of_another_length_is_refused_and_not_stretched() -> None:
    with pytest.raises(ShapeError, match=r"weight .* got \(1,\) for 2"):
        loss_of(SIMILARITY, weight=torch.ones(1))
    with pytest.raises(ShapeError, match=r"bias .* got \(1,\) for 3"):
        loss_of(SIMILARITY, bias=torch.ones(1))


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_the_first_count_that_is_not_finite_is_named(value: float) -> None:
    with pytest.raises(ValueError, match=rf"column 1 is {value}"):
        loss_of(SIMILARITY, log_n=torch.tensor([0.0, value, value]))


# --- which designs are right: SCIENCE section 3.3, in numpy


@dataclass(frozen=True)
class Design:
    """What one row's softmax is made of, for a corpus in which item j was drawn c_j times."""

    name: str
    masked: bool = True

    def terms(self, logits: Floats, n: Floats, draws: int) -> Floats:
        """(M,) e^s_j over what a drawn item is divided by."""
        by = {"expected_count": n, "paper_literal": n / draws, "uncorrected": np.ones_like(n)}[self.name]
        terms: Floats = np.exp(logits) / by
        return terms


RIGHT = Design("expected_count")
WRONG = [Design("uncorrected"), Design("paper_literal"), Design("expected_count", masked=False)]
WRONG_NAMES = ["uncorrected", "paper_literal", "expected_count without mask"]


def zipf(corpus: int) -> Floats:
    q = 1.0 / np.arange(1, corpus + 1)
    share: Floats = q / q.sum()
    return share


def draws_of(rng: np.random.Generator, q: Floats, batch: int, uniform: int, rounds: int) -> NDArray[np.int64]:
    counts: NDArray[np.int64] = rng.multinomial(batch - 1, q, size=rounds) + rng.multinomial(
        uniform, np.full(len(q), 1 / len(q)), size=rounds
    )
    return counts


def denominators(design: Design, logits: Floats, drawn: Floats) -> Floats:
    """(rounds, M) of the softmax of each draw, were item y the positive; `drawn` holds the terms c_j e^s_j / by_j."""
    others = drawn.sum(axis=1, keepdims=True) - (drawn if design.masked else 0.0)
    z: Floats = np.exp(logits) + others
    return z


def mean_gradient(design: Design, rounds: int) -> tuple[float, float]:
    """(T2: norm of the mean gradient at the true optimum, its standard error) at M = 300, B = B' = 256.

    The positive is averaged over exactly, y ~ P, instead of being drawn: sum_y P_y dL_y/ds_j = a_j (sum_y P_y / Z_y -
    P_j / Z_j [masked]) + P_j (e^s_j / Z_j - 1) with a_j = c_j e^s_j / n_j. So far fewer draws have the same noise.
    """
    corpus, batch = 300, 256
    rng = np.random.default_rng(3)
    q = zipf(corpus)
    p = q * np.exp(1.2 * rng.standard_normal(corpus))
    p /= p.sum()
    logits, n = np.log(p), (batch - 1) * q + batch / corpus
    drawn = draws_of(rng, q, batch, batch, rounds) * design.terms(logits, n, 2 * batch - 1)
    z = denominators(design, logits, drawn)
    pull = (p / z).sum(axis=1, keepdims=True) - (p / z if design.masked else 0.0)
    rows = drawn * pull + p * (np.exp(logits) / z - 1.0)
    return float(np.linalg.norm(rows.mean(axis=0))), float(np.sqrt(rows.var(axis=0).sum() / rounds))


GROUPS = {"head": [0, 1, 2], "tail": [199, 259, 319, 379, 439, 499]}  # ranks 1, 2, 3 and 200, 260, ..., counted from 0
MASS_OFF_THE_POSITIVE = {("head", 2): 0.868, ("head", 6): 0.115, ("tail", 2): 0.991, ("tail", 6): 0.725}  # full softmax


def mass_off_the_positive(design: Design | None, rounds: int = 4000) -> dict[tuple[str, int], tuple[float, float]]:
    """(T1: mean softmax mass not on y, its standard error) at M = 500, B = B' = 128, by group of y and lift of s_y.

    None is the full softmax.
    """
    corpus, batch = 500, 128
    rng = np.random.default_rng(1)
    q = zipf(corpus)
    plain = rng.standard_normal(corpus) + 0.5 * np.log(q * corpus)
    counts = draws_of(rng, q, batch, batch, rounds)
    n = (batch - 1) * q + batch / corpus
    found = {}
    for group, lift in MASS_OFF_THE_POSITIVE:
        masses = []
        for y in GROUPS[group]:
            logits = plain.copy()
            logits[y] += lift
            if design is None:
                masses.append(1 - np.exp(logits[y]) / np.exp(logits).sum(keepdims=True))
                continue
            drawn = counts * design.terms(logits, n, 2 * batch - 1)
            others = drawn.sum(axis=1) - drawn[:, y]  # a copy of y among the draws is mass on y
            masses.append(others / (np.exp(logits[y]) + others + (0.0 if design.masked else drawn[:, y])))
        mean = np.mean(masses, axis=0)  # the draws are the same for all y of a group
        found[group, lift] = (float(mean.mean()), float(mean.std() / math.sqrt(len(mean))))
    return found


def test_the_designs_below_are_the_loss_itself() -> None:
    # one draw, item by item as columns: the numpy form and the loss's own gradient agree
    rng = np.random.default_rng(8)
    corpus, batch, uniform, y = 13, 7, 5, 0
    q = zipf(corpus)
    logits, n = rng.standard_normal(corpus), (batch - 1) * q + uniform / corpus
    counts = draws_of(rng, q, batch, uniform, 1)[0]
    assert counts[y] > 0  # the mask is at work
    columns = np.concatenate([[y], np.repeat(np.arange(corpus), counts)])
    leaf = torch.from_numpy(logits[columns])[None].float().requires_grad_()
    log_n = torch.from_numpy(np.log(n[columns])).float()
    expected_count_loss(leaf, temperature=1.0, log_n=log_n, item_row=torch.from_numpy(columns)).backward()  # type: ignore[no-untyped-call]
    assert leaf.grad is not None
    drawn = counts * RIGHT.terms(logits, n, batch - 1 + uniform)
    z = denominators(RIGHT, logits, drawn[None])[0, y]
    assert leaf.grad[0, 0].item() == pytest.approx(np.exp(logits[y]) / z - 1, abs=1e-6)
    by_item = np.bincount(columns[1:], leaf.grad[0, 1:].numpy(), minlength=corpus)
    np.testing.assert_allclose(by_item, np.where(np.arange(corpus) == y, 0, drawn / z), atol=1e-6)


def test_away_from_the_optimum_the_mass_off_the_positive_is_that_of_the_full_softmax() -> None:
    full, sampled = mass_off_the_positive(None, 1), mass_off_the_positive(RIGHT)
    for case, right in MASS_OFF_THE_POSITIVE.items():
        assert full[case][0] == pytest.approx(right, abs=6e-4)
        assert sampled[case][1] < 0.0015  # the noise floor
        assert sampled[case][0] == pytest.approx(full[case][0], abs=0.005)


@pytest.mark.parametrize("design", WRONG, ids=WRONG_NAMES)
def test_wrong_designs_miss_the_mass_off_the_positive(design: Design) -> None:
    full, sampled = mass_off_the_positive(None, 1), mass_off_the_positive(design)
    assert max(abs(sampled[case][0] - full[case][0]) for case in full) > 0.01  # twice what the right one is held to


def test_at_the_true_optimum_the_mean_gradient_vanishes() -> None:
    norm, noise = mean_gradient(RIGHT, 10_000)
    assert noise < 0.004
    assert norm < 0.01


@pytest.mark.parametrize("design", WRONG, ids=WRONG_NAMES)
def test_wrong_designs_pull_away_from_the_true_optimum(design: Design) -> None:
    norm, noise = mean_gradient(design, 2_000)
    assert noise < 0.01
    assert norm > 0.05
