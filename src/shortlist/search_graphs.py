"""The towers as the graphs of a bundle have them: the same functions, the query's in as few operations as can be.

A small query tower is microseconds of arithmetic, and every operation of a graph costs half a microsecond beside it, more where caches
are cold. What training keeps apart is made one here: weights by place are numbers, and the linear path is one product.
"""

from __future__ import annotations

import torch
from torch import nn

from shortlist.layers import NORM_FLOOR, HistoryPooling, top_layer
from shortlist.towers import QueryTower, TwoTower

_LARGEST_SPREAD = 40.0  # nats between weights of places up to which float32 holds the least beside the largest
_LEAST = 1e-30  # below any sum of such weights: keeps a history of nothing from dividing by zero


class SearchedItem(nn.Module):
    """(features, bias of the id, output row of the id) -> what queries see of an item, and what is searched.

    An input that a model does not use is multiplied by 0: it stays part of the graph, so every bundle is asked alike.
    """

    def __init__(self, model: TwoTower) -> None:
        super().__init__()
        self.tower, self.temperature = model.item, model.temperature.detach().clone()
        self.item_bias = model.settings.item_bias

    def forward(self, x: torch.Tensor, id_bias: torch.Tensor, id_output: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        embedding, vector, bias = self.tower(x, x.shape[0], id_output)
        unused = 0 * (id_bias + id_output.sum(dim=1, keepdim=True))  # (n, 1)
        if not self.item_bias:
            return embedding, vector + unused
        bias = id_bias if bias is None else bias[:, None] + id_bias
        return embedding, torch.cat([vector, bias * self.temperature + unused], dim=1)


class SearchingQuery(nn.Module):
    """(seed, history and query features as vectors) -> what is searched with."""

    def __init__(self, model: TwoTower) -> None:
        super().__init__()
        tower, top = model.query, top_layer(model.query.mlp)
        self.pooling, self.below = _pooling(tower.pooling), tower.mlp[:-1]
        self.top, self.bias = nn.Parameter(top.weight.detach().T.contiguous()), top.bias
        self.linear, self.item_bias = _linear_path(tower), model.settings.item_bias

    def forward(
        self, seed: torch.Tensor, has_seed: torch.Tensor, history: torch.Tensor, present: torch.Tensor, x: torch.Tensor
    ) -> torch.Tensor:
        has_history = present.amax(dim=1, keepdim=True)  # 0 or 1, as they are
        inputs = torch.cat([seed, self.pooling(seed, history, present), has_seed, has_history, x], dim=1)
        start = self.bias if self.linear is None else self.linear(inputs)
        vector = torch.addmm(start, self.below(inputs), self.top)
        vector = vector / vector.norm(dim=1, keepdim=True).clamp_min(NORM_FLOOR)
        return torch.cat([vector, torch.ones_like(has_seed)], dim=1) if self.item_bias else vector


class _PlacePooling(nn.Module):
    """`HistoryPooling` whose weights go by place alone: a softmax of what does not change is a division by what is present of it."""

    def __init__(self, position: torch.Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.exp(position - position.max())[None])  # (1, L)

    def forward(self, _: torch.Tensor, history: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        weights = self.weight * present
        weights = weights / weights.sum(dim=1, keepdim=True).clamp_min(_LEAST)
        return (weights[:, None, :] @ history)[:, 0]


def _pooling(pooling: HistoryPooling) -> nn.Module:
    position = pooling.position.detach()
    if pooling.sees_content or float(position.max() - position.min()) > _LARGEST_SPREAD:
        return pooling
    return _PlacePooling(position)


def _linear_path(tower: QueryTower) -> nn.Linear | None:
    """All linear terms of the query tower, and the bias of its top layer, over its inputs side by side; None where it has none."""
    if tower.seed_map is None or tower.history_map is None:
        return None
    dim, width = tower.seed_map.in_features, 0 if tower.feature_map is None else tower.feature_map.in_features
    weights = [tower.seed_map.weight, tower.history_map.weight, torch.zeros(dim, 2)]  # has_seed and has_history add nothing
    if tower.feature_map is not None:
        weights.append(tower.feature_map.weight)
    linear = nn.Linear(2 * dim + 2 + width, dim)
    linear.weight, linear.bias = nn.Parameter(torch.cat(weights, dim=1).detach()), top_layer(tower.mlp).bias
    return linear
