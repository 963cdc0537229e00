"""The softmax in tiles against autograd over the plain formulae, in float64: losses and every gradient, design by design."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from small_passes import each_passes  # noqa: F401  # every test runs with both

from shortlist import tiles
from shortlist.losses import Candidates, sampled_softmax_loss, sampled_softmax_of_vectors
from shortlist.sections import LossDesign
from shortlist.tiles import Terms, softmax_loss

DESIGNS: tuple[LossDesign, ...] = ("expected_count", "all_corrected", "inclusion", "paper_literal", "uncorrected")
B, K, D = 13, 23, 5  # queries, distinct candidates, dimension
C = 37  # columns: some candidates stand in several


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several groups of several tiles each, none of which divides the rows."""
    monkeypatch.setattr(tiles, "_GROUP_BYTES", 5 * K * 4)
    monkeypatch.setattr(tiles, "_TILE_BYTES", 2 * K * 4)


def leaf(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).requires_grad_()


class Step:
    """A batch of columns with repeated items, and all that learns."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.queries, self.vectors, self.bias = leaf(B, D, seed=1), leaf(K, D, seed=2), leaf(K, seed=3)
        self.temperature = torch.tensor(0.7, requires_grad=True)
        self.place = torch.cat([torch.randint(0, 4, (B,), generator=generator), torch.randperm(K, generator=generator)])
        self.place = torch.cat([self.place, self.place[-1:]])  # an index item twice
        of_item = torch.randn(K, 2, generator=generator)
        log_n, log_pi = of_item[self.place].T.contiguous()
        self.weight = torch.rand(B, generator=generator)
        self.candidates = Candidates(100 + 7 * self.place, log_n, log_pi, draws=C - 1)
        self.hidden_items = torch.rand(B, K, generator=generator) < 0.2

    def hidden(self) -> Candidates:
        """With cells hidden by item, but for a row's own."""
        cells = self.hidden_items[:, self.place] & (self.place[:B, None] != self.place[None, :])
        return replace(self.candidates, hidden=cells)

    def leaves(self) -> list[torch.Tensor]:
        return [self.queries, self.vectors, self.temperature, self.bias]

    def plain(self, design: LossDesign, candidates: Candidates, logq_weight: float) -> tuple[float, list[torch.Tensor]]:
        """(loss, gradients) of the plain formulae in float64, one column a candidate."""
        queries, vectors, temperature, bias = (value.detach().double().requires_grad_() for value in self.leaves())
        log_pi = None if candidates.log_pi is None else candidates.log_pi.double()
        loss = sampled_softmax_loss(
            design,
            queries @ vectors[self.place].T,
            replace(candidates, log_n=candidates.log_n.double(), log_pi=log_pi),
            temperature=temperature,
            weight=self.weight.double(),
            bias=bias[self.place],
            logq_weight=logq_weight,
        )
        return float(loss.detach()), list(torch.autograd.grad(loss, [queries, vectors, temperature, bias]))


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("logq_weight", [1.0, 0.3])
@pytest.mark.parametrize("in_batch", [True, False])
@pytest.mark.parametrize("is_masked", [False, True])
@pytest.mark.parametrize("is_merged", [True, False])
def test_loss_and_gradients_are_those_of_the_plain_formulae(
    design: LossDesign, logq_weight: float, in_batch: bool, is_masked: bool, is_merged: bool
) -> None:
    step = Step()
    candidates = replace(step.hidden() if is_masked else step.candidates, in_batch=in_batch)
    vectors, bias, place = (step.vectors, step.bias, step.place) if is_merged else (step.vectors[step.place], step.bias[step.place], None)
    loss = sampled_softmax_of_vectors(
        design,
        step.queries,
        vectors,
        candidates,
        place=place,
        temperature=step.temperature,
        weight=step.weight,
        bias=bias,
        logq_weight=logq_weight,
    )
    expected, gradients = step.plain(design, candidates, logq_weight)
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)
    for found, right in zip(torch.autograd.grad(3 * loss, step.leaves()), gradients, strict=True):
        torch.testing.assert_close(found.double(), 3 * right, rtol=1e-4, atol=1e-5)


def terms(*, shift: torch.Tensor, own: list[int]) -> Terms:
    nothing = torch.zeros(len(own))
    return Terms(shift, torch.tensor(own), nothing, nothing)


def test_two_columns_by_hand() -> None:
    """q = 1, v = (1, 2), T = 0.5: logits 2 and 4, the negative's lowered by 1. loss = -2 + log(e^2 + e^3) = log(1 + e)."""
    loss = softmax_loss(
        torch.tensor([[1.0]]),
        torch.tensor([[1.0], [2.0]]),
        terms(shift=torch.tensor([9.0, -1.0]), own=[0]),
        temperature=torch.tensor(0.5),
        weight=torch.ones(1),
    )
    assert float(loss) == pytest.approx(math.log(1 + math.e), rel=1e-6)


def test_logits_hundreds_apart_give_the_exact_loss_and_no_nan() -> None:
    """The own logit lies 300 below the largest, whose share is 1: the loss is 300, the pull on both is whole."""
    queries, vectors = torch.tensor([[30.0]], requires_grad=True), torch.tensor([[0.0], [1.0]], requires_grad=True)
    own = terms(shift=torch.zeros(2), own=[0])
    loss = softmax_loss(queries, vectors, own, temperature=torch.tensor(0.1), weight=torch.ones(1))
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == pytest.approx(300.0)
    assert vectors.grad is not None and vectors.grad[:, 0].tolist() == pytest.approx([-300.0, 300.0])


def test_rewards_of_zero_alone_give_a_loss_of_zero() -> None:
    loss = softmax_loss(
        torch.ones(2, 3), torch.ones(4, 3), terms(shift=torch.zeros(4), own=[0, 1]), temperature=torch.tensor(1.0), weight=torch.zeros(2)
    )
    assert float(loss) == 0.0


def test_bfloat16_products_stay_within_their_rounding() -> None:
    step = Step()
    exact, gradients = step.plain("expected_count", step.candidates, 1.0)
    loss = sampled_softmax_of_vectors(
        "expected_count",
        step.queries,
        step.vectors,
        step.candidates,
        place=step.place,
        temperature=step.temperature,
        weight=step.weight,
        bias=step.bias,
        kind=torch.bfloat16,
    )
    assert float(loss.detach()) == pytest.approx(exact, rel=0.01)
    for found, right in zip(torch.autograd.grad(loss, step.leaves()), gradients, strict=True):
        assert float((found - right).norm()) < 0.03 * float(right.norm())


def test_equal_calls_give_equal_bytes() -> None:
    def gradient() -> torch.Tensor:
        step = Step()
        loss = sampled_softmax_of_vectors(
            "expected_count",
            step.queries,
            step.vectors,
            step.candidates,
            place=step.place,
            temperature=step.temperature,
            weight=step.weight,
        )
        return torch.autograd.grad(loss, step.vectors)[0]

    assert torch.equal(gradient(), gradient())
