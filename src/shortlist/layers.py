"""The parts that towers are built from: hidden layers, cross layers, history pooling. torch; no knowledge of data."""

from __future__ import annotations

import torch
from torch import nn

from shortlist.config import ModelSettings

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


def normalise(vectors: torch.Tensor) -> torch.Tensor:
    """The vectors at length 1."""
    length: torch.Tensor = vectors.norm(dim=1, keepdim=True)
    return vectors / length.clamp_min(NORM_FLOOR)
