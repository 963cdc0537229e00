"""The losses against hand numbers, slow oracles and their closed gradients. Which of them are right: test_estimators.py.

Long, because five designs share their oracle, and the default design has hand numbers of its own.
"""

from __future__ import annotations

import math
import typing
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from shortlist.errors import ShapeError
from shortlist.losses import Candidates, expected_count_loss, full_softmax_loss, negative_shares, sampled_softmax_loss
from shortlist.sections import LossDesign

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


# --- every design: autograd against the closed form, on random cases

DESIGNS: tuple[LossDesign, ...] = typing.get_args(LossDesign)


@dataclass(frozen=True)
class Case:
    """A batch; `items` are drawn from a corpus that may be smaller than the batch."""

    similarity: torch.Tensor  # (B, C)
    candidates: Candidates
    temperature: float
    weight: torch.Tensor  # (B,)
    bias: torch.Tensor  # (C,)
    logq_weight: float = 1.0

    def loss(self, design: LossDesign, similarity: torch.Tensor | None = None, *, hardest: int = 0) -> torch.Tensor:
        return sampled_softmax_loss(
            design,
            self.similarity if similarity is None else similarity,
            self.candidates,
            temperature=self.temperature,
            weight=self.weight,
            bias=self.bias,
            logq_weight=self.logq_weight,
            hardest=hardest,
        )

    def gradient(self, design: LossDesign, *, hardest: int = 0) -> Floats:
        leaf = self.similarity.clone().requires_grad_()
        self.loss(design, leaf, hardest=hardest).backward()  # type: ignore[no-untyped-call]
        assert leaf.grad is not None
        return leaf.grad.double().numpy()


def random_case(
    seed: int, queries: int = 5, extra: int = 11, corpus: int = 7, dim: int = 3, dtype: torch.dtype = torch.float64, in_batch: bool = True
) -> Case:
    rng = np.random.default_rng(seed)
    columns = queries + extra
    vectors = [torch.from_numpy(rng.standard_normal((size, dim))).to(dtype) for size in (queries, columns)]
    log_n, bias = (torch.from_numpy(rng.standard_normal(columns)).to(dtype) for _ in range(2))
    log_pi = torch.from_numpy(np.log(rng.random(columns) * 0.98 + 0.01)).to(dtype)
    hidden = torch.from_numpy(rng.random((queries, columns)) < 0.2)  # on the diagonal as well: it never hides a positive
    items = torch.from_numpy(rng.integers(0, corpus, columns))
    weight = torch.from_numpy(rng.random(queries) + 0.1).to(dtype)
    candidates = Candidates(items, log_n, log_pi, draws=columns - 1, in_batch=in_batch, hidden=hidden)
    temperature, logq_weight = rng.choice([0.3, 1.0, 2.0]), rng.choice([0.0, 0.3, 1.0])
    return Case(vectors[0] @ vectors[1].T, candidates, float(temperature), weight, bias, float(logq_weight))


def slow_terms(design: LossDesign, case: Case, row: int) -> tuple[float, dict[int, float]]:
    """(the positive's term, the term of each column that is a negative), item ids held in sets."""
    known, items = case.candidates, case.candidates.item_row.tolist()
    assert known.log_pi is not None and known.hidden is not None
    correction = {
        "expected_count": known.log_n,
        "all_corrected": known.log_n,
        "inclusion": known.log_pi,
        "paper_literal": known.log_n - math.log(max(known.draws, 1)),
        "uncorrected": torch.zeros(len(items)),
    }[design].double()
    divisor = [math.exp(case.logq_weight * value) for value in correction.tolist()]
    term = [math.exp(value) for value in (case.similarity[row].double() / case.temperature + case.bias.double()).tolist()]
    own = term[row] / (divisor[row] if design in ("all_corrected", "inclusion") else 1.0)
    if design == "expected_count":  # the dial aims at log P - (1 - weight) log n
        own *= math.exp((1 - case.logq_weight) * float(known.log_n[row]))
    others, met = {}, set()
    for column in range(0 if known.in_batch else len(case.weight), len(items)):
        copy = items[column] in met
        met.add(items[column])  # hidden or not: an item whose first column is hidden does not come back by its second
        if column == row or bool(known.hidden[row, column]):
            continue
        if design != "all_corrected" and items[column] == items[row]:
            continue
        if design == "inclusion" and copy:
            continue
        others[column] = term[column] / divisor[column]
    return own, others


def closed_gradient(design: LossDesign, case: Case) -> Floats:
    """(B, C) weight share / T times: each term's share of the row, less one at the positive."""
    found = np.zeros(case.similarity.shape)
    for row in range(len(found)):
        own, others = slow_terms(design, case, row)
        total = own + sum(others.values())
        for column, term in others.items():
            found[row, column] = term / total
        found[row, row] = own / total - 1
    weight = case.weight.double().numpy()
    scaled: Floats = found * (weight / weight.sum())[:, None] / case.temperature
    return scaled


def oracle_loss(design: LossDesign, case: Case) -> float:
    terms = [slow_terms(design, case, row) for row in range(len(case.weight))]
    losses = [math.log(1 + sum(others.values()) / own) for own, others in terms]
    return float(np.average(losses, weights=case.weight.double().numpy()))


@pytest.mark.parametrize("design", DESIGNS)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32),
    queries=st.sampled_from([1, 2, 3, 5, 7]),
    extra=st.sampled_from([0, 1, 3, 11, 13]),
    corpus=st.sampled_from([1, 2, 5, 17, 1009]),
    dim=st.sampled_from([1, 2, 3]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    in_batch=st.booleans(),
)
def test_loss_and_gradient_are_the_closed_form_of_every_design(
    design: LossDesign, seed: int, queries: int, extra: int, corpus: int, dim: int, dtype: torch.dtype, in_batch: bool
) -> None:
    case = random_case(seed, queries, extra, corpus, dim, dtype, in_batch)
    # log N of paper_literal is rounded to float32, whatever the rest is
    close = 1e-9 if dtype == torch.float64 and design != "paper_literal" else 2e-5
    assert case.loss(design).dtype == dtype
    assert case.loss(design).item() == pytest.approx(oracle_loss(design, case), rel=close, abs=close)
    np.testing.assert_allclose(case.gradient(design), closed_gradient(design, case), rtol=close, atol=close)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32), queries=st.sampled_from([1, 2, 5]), extra=st.sampled_from([1, 3, 7]), corpus=st.sampled_from([2, 5, 17]))
def test_the_gradient_of_the_default_is_that_of_the_corrected_logq_loss(seed: int, queries: int, extra: int, corpus: int) -> None:
    # Khrylchenko et al., RecSys'25: sg(1 - P^) * (-s_y + logsumexp_j(s_j - log Q'_j)), over k negatives that are not y,
    # P^ = e^s_y / (e^s_y + (1/k) sum_j e^(s_j - log Q'_j)). Its counts k Q'_j are our n_j
    case = replace(random_case(seed, queries, extra, corpus), logq_weight=1.0)
    case = replace(case, candidates=replace(case.candidates, hidden=None))
    theirs = case.similarity.clone().requires_grad_()
    logits, items, rows = theirs / case.temperature + case.bias, case.candidates.item_row, []
    for row in range(queries):
        negative = items != items[row]
        count = math.log(max(int(negative.sum()), 1))
        corrected = torch.logsumexp(logits[row, negative] - (case.candidates.log_n[negative] - count), 0)
        positive = logits[row, row]
        share = torch.sigmoid(positive - (corrected - count)).detach()
        rows.append((1 - share) * (corrected - positive) if bool(negative.any()) else 0.0 * positive)
    ((torch.stack(rows) * case.weight).sum() / case.weight.sum()).backward()  # type: ignore[no-untyped-call]
    assert theirs.grad is not None
    np.testing.assert_allclose(case.gradient("expected_count"), theirs.grad.numpy(), atol=1e-12)


@pytest.mark.parametrize("design", DESIGNS)
def test_when_every_item_of_the_batch_is_the_same_only_the_design_that_keeps_copies_has_a_loss(design: LossDesign) -> None:
    # B = 3, all logits 0, n = 2: all_corrected has the positive at 1/2 and two copies at 1/2 each: -log(1/3)
    candidates = Candidates(torch.full((3,), 4), torch.full((3,), math.log(2.0)), torch.full((3,), -0.1), draws=2)
    loss = sampled_softmax_loss(design, torch.zeros(3, 3), candidates, temperature=1.0)
    assert loss.item() == pytest.approx(math.log(3) if design == "all_corrected" else 0.0, abs=1e-6)


# --- inclusion


def test_an_item_drawn_again_counts_once_by_hand() -> None:
    # row 0's positive is item 7; item 8 stands in columns 1 and 3, item 9 in column 2; logits 0; pi = .5, .25, .2 of items 7, 8, 9
    # loss_0 = log(1/.5 + 1/.25 + 1/.2) - log(1/.5) = log(11/2); row 1 (item 8): log(2 + 4 + 5) - log 4 = log(11/4)
    pi = torch.tensor([0.5, 0.25, 0.2, 0.25])
    candidates = Candidates(torch.tensor([7, 8, 9, 8]), torch.zeros(4), torch.log(pi))
    loss = sampled_softmax_loss("inclusion", torch.zeros(2, 4), candidates, temperature=1.0)
    assert loss.item() == pytest.approx((math.log(11 / 2) + math.log(11 / 4)) / 2, rel=1e-6)
    # without in-batch negatives the copy in column 3 is the first: row 0 log(2 + 5 + 4) - log 2 as before, row 1 log(4 + 5) - log 4
    apart = sampled_softmax_loss("inclusion", torch.zeros(2, 4), replace(candidates, in_batch=False), temperature=1.0)
    assert apart.item() == pytest.approx((math.log(11 / 2) + math.log(9 / 4)) / 2, rel=1e-6)


def test_inclusion_without_its_probabilities_is_refused() -> None:
    with pytest.raises(ValueError, match="the inclusion design needs log_pi: got none"):
        sampled_softmax_loss("inclusion", SIMILARITY, Candidates(ITEMS, LOG_N), temperature=1.0)


# --- hardest, hidden, the dial, shares


def test_the_hardest_negative_is_chosen_after_the_correction() -> None:
    # of the hand numbers' row 1, column 2 has the higher logit (.6 > .2) and column 0 the higher corrected one (.610701 > .455530)
    # so row 0: log(2.718282 + 2.983649) - 1 = .740806; row 1: log(2.225541 + .610701) - .8 = .242480
    hardest = sampled_softmax_loss("expected_count", SIMILARITY, Candidates(ITEMS, LOG_N), temperature=0.5, hardest=1)
    assert hardest.item() == pytest.approx((0.740806 + 0.242480) / 2, abs=2e-6)


@pytest.mark.parametrize("design", DESIGNS)
def test_only_the_hardest_negatives_have_a_gradient(design: LossDesign) -> None:
    case = random_case(4)
    kept = case.gradient(design, hardest=3)
    for row in range(5):
        own, others = slow_terms(design, case, row)
        hardest = sorted(others, key=lambda column: -others[column])[:3]
        assert set(np.flatnonzero(kept[row])) == {row, *hardest}
        share = own / (own + sum(others[column] for column in hardest))
        weight = (case.weight[row] / case.weight.sum()).item()
        assert kept[row, row] == pytest.approx((share - 1) * weight / case.temperature, rel=1e-6)
    for everything in (16, 99):
        np.testing.assert_array_equal(case.gradient(design, hardest=everything), case.gradient(design))


@pytest.mark.parametrize("design", DESIGNS)
def test_a_hidden_cell_has_no_gradient_and_a_positive_is_never_hidden(design: LossDesign) -> None:
    case = random_case(6, queries=5, extra=7, corpus=1009)  # distinct items
    hidden = torch.zeros(5, 12, dtype=torch.bool)
    hidden[0, 3] = hidden[2, 10] = True
    found = replace(case, candidates=replace(case.candidates, hidden=hidden)).gradient(design)
    assert found[0, 3] == found[2, 10] == 0.0
    assert np.count_nonzero(found) == 5 * 12 - 2
    with_diagonal = hidden | torch.eye(5, 12, dtype=torch.bool)
    same = replace(case, candidates=replace(case.candidates, hidden=with_diagonal)).gradient(design)
    np.testing.assert_array_equal(same, found)
    nothing = replace(case, candidates=replace(case.candidates, hidden=torch.ones(5, 12, dtype=torch.bool)))
    assert nothing.loss(design).item() == pytest.approx(0.0, abs=1e-12)  # only the positive is left


def test_at_weight_zero_nothing_is_corrected() -> None:
    case = replace(random_case(7), logq_weight=0.0)
    assert case.loss("paper_literal").item() == case.loss("uncorrected").item()
    # expected_count is then the uncorrected loss of a positive that weighs n_y
    shifted = replace(case, similarity=case.similarity.clone())
    rows = torch.arange(5)
    shifted.similarity[rows, rows] += (case.candidates.log_n[:5] * case.temperature).to(case.similarity.dtype)
    assert case.loss("expected_count").item() == pytest.approx(shifted.loss("uncorrected").item(), rel=1e-6)
    # all_corrected is then the plain in-batch softmax, copies kept
    plain = replace(case, candidates=replace(case.candidates, hidden=None), weight=torch.ones(5, dtype=torch.float64))
    logits = plain.similarity / plain.temperature + plain.bias
    expected = torch.nn.functional.cross_entropy(logits, torch.arange(5))
    assert plain.loss("all_corrected").item() == pytest.approx(expected.item(), rel=1e-12)


def test_at_weight_one_half_the_gap_between_counts_is_the_root_of_their_ratio() -> None:
    # two negatives of equal logit with counts 9 and 1: shares 1/3 : 1
    candidates = Candidates(torch.tensor([1, 2, 3]), torch.log(torch.tensor([1.0, 9.0, 1.0])), torch.log(torch.tensor([1.0, 0.9, 0.1])), 2)
    for design, ratio in (
        ("expected_count", 3.0),
        ("all_corrected", 3.0),
        ("paper_literal", 3.0),
        ("inclusion", 3.0),
        ("uncorrected", 1.0),
    ):
        shares = negative_shares(design, torch.zeros(1, 3), candidates, temperature=1.0, logq_weight=0.5)  # type: ignore[arg-type]
        assert (shares[0, 2] / shares[0, 1]).item() == pytest.approx(ratio, rel=1e-6)


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("in_batch", [True, False])
def test_the_shares_of_the_negatives_add_up_to_one_and_are_those_of_the_gradient(design: LossDesign, in_batch: bool) -> None:
    case = random_case(11, queries=5, extra=7, corpus=7, in_batch=in_batch)
    shares = negative_shares(
        design, case.similarity, case.candidates, temperature=case.temperature, bias=case.bias, logq_weight=case.logq_weight
    )
    found = np.where(np.eye(5, 12, dtype=bool), 0.0, case.gradient(design))
    np.testing.assert_allclose(shares.numpy(), found / found.sum(axis=1, keepdims=True), atol=1e-6)
    np.testing.assert_allclose(shares.sum(dim=1).numpy(), 1.0, atol=1e-6)


def test_a_row_without_any_negative_has_shares_of_zero() -> None:
    candidates = Candidates(torch.tensor([4, 4, 5]), torch.zeros(3), hidden=torch.tensor([[False, False, True], [False, False, False]]))
    shares = negative_shares("expected_count", torch.zeros(2, 3), candidates, temperature=1.0)
    assert shares.tolist() == [[0.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
