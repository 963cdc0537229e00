"""The parts that towers are built from: hidden layers, cross layers, history pooling. torch; no knowledge of data."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from shortlist.kernels import kernels
from shortlist.sections import ModelSettings

NORM_FLOOR = 1e-6  # keeps a zero vector from dividing by zero
_ABSENT = -1e30  # a score below all others, finite so that a row of nothing else has no nan


def hidden_layers(width: int, settings: ModelSettings) -> nn.Sequential:
    """Cross layers, if any, then linear layers with ReLU between and none on top.

    With `linear_path` the top weights start at 0, so that the linear path speaks alone at first.
    """
    layers: list[nn.Module] = [CrossLayers(width, settings.cross_layers, settings.cross_rank)] if settings.cross_layers else []
    for out in settings.hidden:
        layers += [nn.Linear(width, out), nn.ReLU(inplace=True)]  # the product is not needed once it is cut off
        width = out
    stack = nn.Sequential(*layers[:-1])
    top = top_layer(stack)
    if settings.linear_path:
        nn.init.zeros_(top.weight)
    nn.init.zeros_(top.bias)
    return stack


def top_layer(stack: nn.Sequential) -> nn.Linear:
    """The last layer of `hidden_layers`."""
    top = stack[-1]
    assert isinstance(top, nn.Linear)
    return top


def through_layers(stack: nn.Sequential, x: torch.Tensor) -> torch.Tensor:
    """(n, D) what `hidden_layers` make of x (n, width); the first layer's last `width` inputs where it has more, the others being 0.

    With compiled passes a layer is its products and one pass more each way; else, and behind cross layers, it is torch's modules.
    """
    first = stack[0]
    if not isinstance(first, nn.Linear):
        plain: torch.Tensor = stack(x)
        return plain
    weight = first.weight if x.shape[1] == first.in_features else first.weight[:, first.in_features - x.shape[1] :]
    if kernels() is None:
        eager: torch.Tensor = stack[1:](functional.linear(x, weight, first.bias))
        return eager
    kind = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32
    rest = [part for layer in list(stack)[1:] if isinstance(layer, nn.Linear) for part in (layer.weight, layer.bias)]
    deep: torch.Tensor = _HiddenLayers.apply(kind, x, weight, first.bias, *rest)  # type: ignore[no-untyped-call]  # torch types none
    return deep


class _HiddenLayers(torch.autograd.Function):
    """x -> W2 relu(W1 x + b1) + b2 and so on, in products of one type; weights and biases in turns."""

    @staticmethod
    def forward(ctx: Any, kind: torch.dtype, x: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        passes = kernels()
        assert passes is not None
        weights, biases = [weight.to(kind) for weight in parameters[::2]], parameters[1::2]
        outputs = [x.to(kind)]
        with torch.autocast("cpu", enabled=False):
            for place, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
                outputs.append(outputs[-1] @ weight.T)
                passes.add_bias(outputs[-1], bias, cuts=place + 1 < len(weights))
        ctx.save_for_backward(*outputs[:-1], *weights)
        ctx.kind_of_x = x.dtype
        return outputs[-1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        passes = kernels()
        assert passes is not None
        count = len(ctx.saved_tensors) // 2
        inputs, weights = ctx.saved_tensors[:count], ctx.saved_tensors[count:]
        gradient = gradient.contiguous()
        of_bias = passes.relu_backward(gradient)
        found: list[torch.Tensor | None] = []
        for place in reversed(range(count)):
            found = [(gradient.T @ inputs[place]).float(), of_bias, *found]
            if place == 0:
                break
            gradient = gradient @ weights[place]
            of_bias = passes.relu_backward(gradient, inputs[place])
        of_x = (gradient @ weights[0]).to(ctx.kind_of_x) if ctx.needs_input_grad[1] else None
        return None, of_x, *found


class CrossLayers(nn.Module):
    """Low-rank cross layers: products of input features, one degree more a layer (DCN-V2, Wang et al., arXiv 2008.13535).

        x_{l+1} = x_0 * (U_l V_l x_l + b_l) + x_l

    U and b start at 0: at first the layers let x_0 through.
    """

    def __init__(self, width: int, count: int, rank: int) -> None:
        super().__init__()
        self.down = nn.ModuleList(nn.Linear(width, rank, bias=False) for _ in range(count))
        ups = [nn.Linear(rank, width) for _ in range(count)]
        for up in ups:
            nn.init.zeros_(up.weight)
            nn.init.zeros_(up.bias)
        self.up = nn.ModuleList(ups)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, width) -> (n, width)."""
        crossed = x
        for down, up in zip(self.down, self.up, strict=True):
            crossed = x * up(down(crossed)) + crossed
        return crossed


class HistoryPooling(nn.Module):
    """One vector of a history, newest first: a weighted mean of its items.

    recency     softmax of learned weights by place, which start at -1/2 log(place)
    mean        equal weights
    attention   softmax of (what is looked at) . W e_p / sqrt(D) plus the learned weight by place; without a seed, by place alone
    """

    def __init__(self, last: int, settings: ModelSettings) -> None:
        super().__init__()
        self.kind, dim = settings.history_pooling, settings.hidden[-1]
        start = -0.5 * torch.log(1.0 + torch.arange(max(last, 1)))
        self.position = nn.Parameter(torch.zeros_like(start) if self.kind == "mean" else start)
        self.position.requires_grad_(self.kind != "mean")
        self.attention = nn.Linear(dim, dim, bias=False) if self.kind == "attention" else None
        if self.attention is not None:
            nn.init.zeros_(self.attention.weight)
        self.scale = dim**-0.5

    @property
    def sees_content(self) -> bool:
        """Do the weights depend on the items, and not on their places alone?"""
        return self.attention is not None

    def weights(self, present: torch.Tensor) -> torch.Tensor:
        """(N, L) weights by place that add up to 1 over the items present (N, L), 0 elsewhere."""
        return masked_softmax(self.position[None, : present.shape[1]], present)

    def forward(self, seed: torch.Tensor, history: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        """seed (N, D), history (N, L, D), present (N, L) as 0 or 1 -> (N, D), zeros where nothing is present."""
        if self.attention is None:
            weights = self.weights(present)
        else:
            scores = (history @ self.attention(seed).to(history.dtype)[:, :, None])[:, :, 0].float() * self.scale  # (N, L)
            weights = masked_softmax(scores + self.position[None, : present.shape[1]], present)
        return (weights[:, None, :] @ history.float())[:, 0]


def masked_softmax(scores: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """(N, L) softmax of scores (N or 1, L) over the entries present (N, L), 0 elsewhere and where a row has none."""
    scores = torch.where(present > 0, scores, _ABSENT)  # an absent entry has no say in the largest either
    raw = torch.exp(scores - scores.amax(dim=1, keepdim=True).detach()) * present
    return raw / raw.sum(dim=1, keepdim=True).clamp_min(NORM_FLOOR)


def normalise(vectors: torch.Tensor, addends: torch.Tensor | None = None, *, count: int | None = None) -> torch.Tensor:
    """(n, D) the first n = `count` rows of vectors + addends, or all, at length 1, in float32 at least; no addends are zeros."""
    if kernels() is not None and vectors.dtype in (torch.float32, torch.bfloat16):
        unit: torch.Tensor = _Normalise.apply(vectors, addends, len(vectors) if count is None else count)  # type: ignore[no-untyped-call]  # torch types none
        return unit
    vectors = vectors.float() if vectors.dtype == torch.bfloat16 else vectors
    vectors = vectors if count is None else vectors[:count]
    total = vectors if addends is None else vectors + addends
    length: torch.Tensor = total.norm(dim=1, keepdim=True)
    return total / length.clamp_min(NORM_FLOOR)


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, vectors: torch.Tensor, addends: torch.Tensor | None, count: int) -> torch.Tensor:
        passes = kernels()
        assert passes is not None
        addends = None if addends is None else addends.contiguous()
        units, lengths = passes.normalise(vectors.contiguous(), addends, count, NORM_FLOOR)
        ctx.save_for_backward(units, lengths)
        ctx.shape, ctx.kind = vectors.shape, vectors.dtype
        return units

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        passes = kernels()
        assert passes is not None
        of_vectors, adds = torch.empty(ctx.shape, dtype=ctx.kind), ctx.needs_input_grad[1]
        units, lengths = ctx.saved_tensors
        of_addends = passes.normalise_backward(gradient.contiguous(), units, lengths, NORM_FLOOR, of_values=of_vectors, adds=adds)
        return of_vectors, of_addends, None
