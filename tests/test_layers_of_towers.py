"""Cross layers and history pooling by hand; what is not there has no say."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pytest
import torch
from small_passes import each_passes  # noqa: F401  # every test runs with both
from torch import nn

from shortlist.layers import CrossLayers, HistoryPooling, hidden_layers, masked_softmax, normalise, through_layers, top_layer
from shortlist.sections import ModelSettings

L, D, N = 5, 3, 7
Pooling = Literal["recency", "mean", "attention"]
KINDS: tuple[Pooling, ...] = ("recency", "mean", "attention")


def pooling(kind: Pooling, *, shaken: bool = False, last: int = L, dim: int = D) -> HistoryPooling:
    layer = HistoryPooling(last, ModelSettings(hidden=(dim,), history_pooling=kind))
    if shaken:
        shake(layer)
    return layer.eval()


def shake(module: nn.Module) -> None:
    """Random numbers in place of the start values that say nothing."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for value in module.parameters():
            if value.requires_grad:
                value.copy_(torch.randn(value.shape, generator=generator))


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def present(*lengths: int, last: int = L) -> torch.Tensor:
    """(n, last): the first so many places of each row."""
    return (torch.arange(last)[None, :] < torch.tensor(lengths)[:, None]).float()


# --- cross layers


def test_fresh_cross_layers_let_their_input_through() -> None:
    x = numbers(N, 11)
    assert torch.equal(CrossLayers(11, 3, 2)(x), x)


def test_two_cross_layers_by_hand() -> None:
    layers = CrossLayers(2, 2, 1)
    with torch.no_grad():
        for down, up, (v, u, b) in zip(layers.down, layers.up, [((1, 2), (1, -1), (0, 1)), ((1, 0), (2, 0), (0, 3))], strict=True):
            assert isinstance(down, nn.Linear) and isinstance(up, nn.Linear)
            down.weight.copy_(torch.tensor([v]))
            up.weight.copy_(torch.tensor(u)[:, None])
            up.bias.copy_(torch.tensor(b))
    # x0 = (2, 3). Layer 1: V x0 = 2 + 6 = 8; U 8 + b = (8, -8 + 1) = (8, -7); x1 = (2*8 + 2, 3*-7 + 3) = (18, -18)
    # layer 2: V x1 = 18; U 18 + b = (36, 3); x2 = (2*36 + 18, 3*3 - 18) = (90, -9)
    assert layers(torch.tensor([[2.0, 3.0]])).tolist() == [[90.0, -9.0]]


def test_cross_layers_equal_a_slow_sum_over_products() -> None:
    width, count, rank = 7, 3, 2
    layers = CrossLayers(width, count, rank)
    shake(layers)
    x0 = numbers(5, width)
    got = layers(x0).detach().numpy()
    for row, start in zip(got, x0.double().numpy(), strict=True):
        x = start.copy()
        for down, up in zip(layers.down, layers.up, strict=True):
            assert isinstance(down, nn.Linear) and isinstance(up, nn.Linear)
            v, u, b = (value.detach().double().numpy() for value in (down.weight, up.weight, up.bias))
            following = [start[i] * (sum(u[i, r] * v[r, j] * x[j] for r in range(rank) for j in range(width)) + b[i]) for i in range(width)]
            x = np.array(following) + x
        np.testing.assert_allclose(row, x, rtol=2e-4)


def test_cross_layers_stand_in_front_of_the_hidden_ones_and_only_where_asked_for() -> None:
    plain = hidden_layers(11, ModelSettings(hidden=(5, 3)))
    crossed = hidden_layers(11, ModelSettings(hidden=(5, 3), cross_layers=2, cross_rank=4))
    assert [type(layer).__name__ for layer in plain] == ["Linear", "ReLU", "Linear"]
    assert [type(layer).__name__ for layer in crossed] == ["CrossLayers", "Linear", "ReLU", "Linear"]
    assert top_layer(crossed).weight.shape == (3, 5)
    assert sum(value.numel() for value in crossed.parameters()) - sum(value.numel() for value in plain.parameters()) == 2 * (2 * 44 + 11)


def test_fresh_cross_layers_learn() -> None:
    layers = CrossLayers(7, 2, 3)
    layers(numbers(5, 7)).square().sum().backward()
    assert all(up.weight.grad is not None and bool(up.weight.grad.any()) for up in layers.up)  # U is the first to leave its zero


# --- pooling by hand


def test_fresh_recency_pooling_by_hand() -> None:
    # weights 1/sqrt(1), 1/sqrt(2), 1/sqrt(3) over their sum 1 + .7071 + .5774 = 2.2845
    history = torch.eye(3)[None]  # three items, each its own direction
    pooled = pooling("recency", last=3)(torch.zeros(1, 3), history, present(3, last=3))
    total = 1 + 2**-0.5 + 3**-0.5
    np.testing.assert_allclose(pooled.detach(), [[1 / total, 2**-0.5 / total, 3**-0.5 / total]], rtol=1e-6)


def test_attention_pooling_by_hand() -> None:
    layer = pooling("attention", last=2, dim=2)
    assert layer.attention is not None
    with torch.no_grad():
        layer.attention.weight.copy_(torch.tensor([[0.0, 2.0], [1.0, 0.0]]))
        layer.position.copy_(torch.tensor([0.0, 0.5]))
    # seed (3, 1): W seed = (2, 3). Items (1, 0) and (1, 1): products 2 and 5, over sqrt(2), plus 0 and .5
    first, second = math.exp(2 / math.sqrt(2)), math.exp(5 / math.sqrt(2) + 0.5)
    pooled = layer(torch.tensor([[3.0, 1.0]]), torch.tensor([[[1.0, 0.0], [1.0, 1.0]]]), torch.ones(1, 2))
    np.testing.assert_allclose(pooled.detach(), [[1.0, second / (first + second)]], rtol=1e-5)


def test_attention_without_a_seed_goes_by_place_alone() -> None:
    layer, history = pooling("attention", shaken=True), numbers(N, L, D)
    there = present(1, 2, 3, 4, 5, 3, 2)
    expected = layer.weights(there)[:, None, :] @ history  # (N, 1, D)
    assert torch.allclose(layer(torch.zeros(N, D), history, there), expected[:, 0], atol=1e-6)


def test_fresh_attention_equals_recency_whatever_is_looked_at() -> None:
    history, there = numbers(N, L, D), present(1, 2, 3, 4, 5, 3, 0)
    recency, attention = pooling("recency"), pooling("attention")
    assert torch.allclose(attention(numbers(N, D, seed=1), history, there), recency(torch.zeros(N, D), history, there), atol=1e-6)


def test_mean_pooling_is_the_mean_of_those_present_and_learns_nothing() -> None:
    history = numbers(2, L, D)
    layer = pooling("mean")
    pooled = layer(torch.zeros(2, D), history, present(3, 5))
    np.testing.assert_allclose(pooled, np.stack([history[0, :3].mean(dim=0), history[1].mean(dim=0)]), atol=1e-6)
    assert not any(value.requires_grad for value in layer.parameters())


# --- what is not there


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_history_is_zero_and_its_gradient_finite(kind: Pooling) -> None:
    layer, history = pooling(kind, shaken=True), numbers(2, L, D).requires_grad_()
    pooled = layer(numbers(2, D, seed=1), history, present(0, 2))
    assert pooled[0].tolist() == [0.0] * D
    pooled.square().sum().backward()
    assert history.grad is not None and torch.isfinite(history.grad).all() and not history.grad[0].any()
    assert all(bool(torch.isfinite(value.grad).all()) for value in layer.parameters() if value.grad is not None)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fill", [0.0, 1e6, -1e6])
def test_padded_entries_have_no_influence(kind: Pooling, fill: float) -> None:
    layer, seed, history, there = pooling(kind, shaken=True), numbers(N, D, seed=1), numbers(N, L, D), present(1, 2, 3, 4, 5, 3, 2)
    padded = torch.where(there[:, :, None] > 0, history, torch.tensor(fill))
    assert torch.allclose(layer(seed, padded, there), layer(seed, history, there), atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("strength", [1.0, 40.0, 400.0])
def test_a_padded_history_pools_as_a_short_one_however_small_its_scores(kind: Pooling, strength: float) -> None:
    layer, there = pooling(kind, shaken=True), present(2)
    seed, history = strength * numbers(1, D, seed=1), numbers(1, L, D)
    for sign in (1.0, -1.0):  # scores far above and far below those of nothing
        padded, short = layer(sign * seed, history, there), layer(sign * seed, history[:, :2], torch.ones(1, 2))
        assert torch.allclose(padded, short, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_history_pools_alone_as_it_does_beside_others(kind: Pooling) -> None:
    layer, seed, history, there = pooling(kind, shaken=True), numbers(N, D, seed=1), numbers(N, L, D), present(1, 2, 3, 4, 5, 3, 0)
    together = layer(seed, history, there)
    for row in range(N):
        alone = layer(seed[row : row + 1], history[row : row + 1], there[row : row + 1])
        assert torch.allclose(alone[0], together[row], atol=1e-6)


def test_a_masked_softmax_is_that_of_the_entries_present() -> None:
    # e^1 : e^3 = 1 : 7.389; the 99 in between is not there
    weights = masked_softmax(torch.tensor([[1.0, 99.0, 3.0]]), torch.tensor([[1.0, 0.0, 1.0]]))
    np.testing.assert_allclose(weights, [[1 / (1 + math.exp(2)), 0.0, math.exp(2) / (1 + math.exp(2))]], rtol=1e-6)


def test_weights_add_up_to_one_where_the_places_present_are_the_least_liked() -> None:
    weights = masked_softmax(torch.tensor([[0.0, -30.0, -31.0]]), torch.tensor([[0.0, 1.0, 1.0]]))
    np.testing.assert_allclose(weights, [[0.0, 1 / (1 + math.exp(-1)), 1 / (1 + math.e)]], rtol=1e-6)


# --- products with one pass more


@pytest.mark.parametrize("missing", [0, 4])
@pytest.mark.parametrize("linear_path", [True, False])
def test_layers_and_their_gradients_are_those_of_torchs_modules(missing: int, linear_path: bool) -> None:
    """With `missing` inputs left out, which are 0."""
    torch.manual_seed(0)
    stack = hidden_layers(11 + missing, ModelSettings(hidden=(19, 13, D), linear_path=linear_path))
    for part in stack.parameters():
        nn.init.normal_(part)
    x, toward = torch.randn(N, 11, requires_grad=True), torch.randn(N, D)
    zeros = torch.zeros(N, missing)
    right = stack.double()(torch.cat([zeros, x], dim=1).double())
    wanted = torch.autograd.grad((right * toward).sum(), [x, *stack.parameters()])
    found = through_layers(stack.float(), x)
    torch.testing.assert_close(found.double(), right, rtol=1e-5, atol=1e-5)
    for one, exact in zip(torch.autograd.grad((found * toward).sum(), [x, *stack.parameters()]), wanted, strict=True):
        torch.testing.assert_close(one.double(), exact.double(), rtol=1e-4, atol=1e-4)


def test_bfloat16_layers_stay_within_their_rounding() -> None:
    torch.manual_seed(0)
    stack = hidden_layers(11, ModelSettings(hidden=(19, D), linear_path=False))
    x = torch.randn(N, 11, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        found = through_layers(stack, x)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), stack(x), rtol=0.03, atol=0.03)
    (gradient,) = torch.autograd.grad(found.sum(), x)
    torch.testing.assert_close(gradient, torch.autograd.grad(stack(x).sum(), x)[0], rtol=0.05, atol=0.05)


def test_unit_vectors_and_their_gradients() -> None:
    """(3, 4) becomes (.6, .8); a pull of (5, 0) moves it by (5 (1 - .36), -5 .48) / 5."""
    vectors = torch.tensor([[3.0, 4.0]], requires_grad=True)
    unit = normalise(torch.cat([vectors - 1, vectors]), torch.ones(1, 2), count=1)
    assert unit.tolist()[0] == pytest.approx([0.6, 0.8])
    (gradient,) = torch.autograd.grad((unit * torch.tensor([[5.0, 0.0]])).sum(), vectors)
    assert gradient.tolist()[0] == pytest.approx([0.64, -0.48])
