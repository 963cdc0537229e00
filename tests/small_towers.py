"""Query towers with random weights, without data, and what they are asked."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import torch

from shortlist.config import Config, config_from_tree
from shortlist.towers import QueryTower, TwoTower

QUERIES, DIM, LAST, FEATURES = 13, 7, 5, 3


def tower_of(width: int = FEATURES, **model: Any) -> TwoTower:
    """What a graph takes of two towers: a query tower, all its weights random, also those that start at zero."""
    tree = {"data": {"events": "e", "items": "i"}, "columns": {"item": "i", "user": "u"}, "item": {"features": {"i": "id"}}}
    config: Config = config_from_tree({**tree, "model": {"hidden": [19, DIM], **model}})
    torch.manual_seed(3)
    tower = QueryTower(width, LAST, config.model)
    with torch.no_grad():
        for value in tower.parameters():
            value.add_(0.5 * torch.randn(value.shape))
    return cast(TwoTower, SimpleNamespace(query=tower, settings=config.model))


def questions(width: int = FEATURES) -> tuple[torch.Tensor, ...]:
    """Queries with and without a seed, with histories of every length."""
    generator = torch.Generator().manual_seed(5)
    has_seed = (torch.arange(QUERIES) % 3 > 0).float()[:, None]
    present = (torch.arange(LAST)[None] < (torch.arange(QUERIES) % (LAST + 1))[:, None]).float()
    seed = torch.randn(QUERIES, DIM, generator=generator) * has_seed
    history = torch.randn(QUERIES, LAST, DIM, generator=generator) * present[:, :, None]
    return seed, has_seed, history, present, torch.randn(QUERIES, width, generator=generator)
