"""The two towers: what a query and an item look like as vectors, whose inner product over the temperature is the logit.

    item:   x = [features]             e = E x          v = normalise( MLP(x) + e )
    query:  x = [e_seed, h, features]  h = sum_p w_p e_p over the history, w = softmax of learned weights by position
                                                        u = normalise( MLP(x) + A e_seed + H h )

e is the item's input embedding, shared by all its roles: candidate, seed and history (Yi et al., RecSys'19, share the id
tables; here the content is shared too, so that a new item can be looked at and remembered, not only retrieved). The
linear terms are optional (`model.linear_path`); without them the towers are the paper's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from shortlist.batches import Batch
from shortlist.config import ModelSettings
from shortlist.dataset import Dataset
from shortlist.features.arrays import Bag, Dense, FeatureArray, Ids
from shortlist.features.encoder import TableEncoder
from shortlist.features.vocabulary import CategoryEncoder
from shortlist.queries import QueryEncoder

NORM_FLOOR = 1e-6  # keeps a zero vector from dividing by zero
START_LENGTH = 0.3  # of the output for a query that says nothing
BIAS = "#bias"  # suffix of the table of item biases, which has the rows of the id table


@dataclass(frozen=True)
class EncodedItems:
    """What the item tower knows of n items, the first c of which are candidates."""

    embedding: torch.Tensor  # (n, D) e: what queries see of them
    vector: torch.Tensor  # (c, D) v, of length 1
    bias: torch.Tensor | None  # (c,) added to the logit; None = the model has no biases


class ItemTower(nn.Module):
    """Item features -> input embedding e, vector v, and the content's part of the bias."""

    def __init__(self, width: int, settings: ModelSettings) -> None:
        super().__init__()
        dim = settings.hidden[-1]
        self.embedding = nn.Linear(width, dim, bias=False)
        self.mlp = mlp(width, settings.hidden, starts_at_zero=settings.linear_path)
        self.linear_path = settings.linear_path
        self.bias = nn.Linear(width, 1, bias=False) if settings.item_bias else None
        if self.bias is not None:
            nn.init.zeros_(self.bias.weight)

    def forward(self, x: torch.Tensor, candidates: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """(n, width) -> e (n, D), and of the first c = `candidates` rows v (c, D) and content bias (c,) or None."""
        embedding = self.embedding(x).float()
        x = x[:candidates]
        deep = self.mlp(x).float()
        vector = normalise(deep + embedding[:candidates] if self.linear_path else deep)
        return embedding, vector, None if self.bias is None else self.bias(x).float()[:, 0]


class QueryTower(nn.Module):
    """Seed, history and query features -> vector u of length 1."""

    def __init__(self, width: int, history_last: int, settings: ModelSettings) -> None:
        super().__init__()
        dim = settings.hidden[-1]
        self.mlp = mlp(2 * dim + 2 + width, settings.hidden, starts_at_zero=settings.linear_path)
        # A query without seed and history must not be the zero vector: its direction has a gradient of 1 / NORM_FLOOR, and
        # one such gradient would stay in Adagrad's sums and freeze the layer.
        nn.init.normal_(self.mlp[-1].bias, std=START_LENGTH * dim**-0.5)
        self.seed_map = nn.Linear(dim, dim, bias=False) if settings.linear_path else None
        self.history_map = nn.Linear(dim, dim, bias=False) if settings.linear_path else None
        for linear in (self.seed_map, self.history_map):
            if linear is not None:
                nn.init.eye_(linear.weight)
        start = -0.5 * torch.log(1.0 + torch.arange(max(history_last, 1)))
        self.position = nn.Parameter(start if settings.recency_weights else torch.zeros_like(start))
        self.position.requires_grad_(settings.recency_weights)

    def history_weights(self, present: torch.Tensor) -> torch.Tensor:
        """(N, L) weights of the history items, newest first, that add up to 1 over those present, 0 elsewhere."""
        raw = torch.exp(self.position - self.position.max())[None, : present.shape[1]] * present
        return raw / raw.sum(dim=1, keepdim=True).clamp_min(NORM_FLOOR)

    def forward(
        self, seed: torch.Tensor, has_seed: torch.Tensor, history: torch.Tensor, has_history: torch.Tensor, x: torch.Tensor
    ) -> torch.Tensor:
        """seed (N, D) and pooled history (N, D), 0 where none; has_* (N, 1) as 0 or 1; x (N, width) -> u (N, D)."""
        deep = self.mlp(torch.cat([seed, history, has_seed, has_history, x], dim=1)).float()
        if self.seed_map is not None and self.history_map is not None:
            deep = deep + self.seed_map(seed).float() + self.history_map(history).float()
        return normalise(deep)


class TwoTower(nn.Module):
    """Both towers and the temperature. The embedding tables live outside (tables.py); lookups come in as tensors."""

    def __init__(self, item_encoder: TableEncoder, query_encoder: QueryEncoder, settings: ModelSettings) -> None:
        super().__init__()
        self.settings = settings
        self.history_last = query_encoder.history_last
        self.id_feature = item_encoder.id_feature()
        item_width = input_width(item_encoder, settings)
        query_width = input_width(query_encoder.user, settings) + input_width(query_encoder.context, settings)
        self.item = ItemTower(item_width, settings)
        self.query = QueryTower(query_width, self.history_last, settings)
        self.log_temperature = nn.Parameter(torch.tensor(float(np.log(settings.temperature))))
        self.log_temperature.requires_grad_(settings.learn_temperature)

    @property
    def temperature(self) -> torch.Tensor:
        """() T, within `model.temperature_bounds`."""
        return self.log_temperature.exp()

    @torch.no_grad()
    def keep_temperature_within_bounds(self) -> None:
        """Puts a learned temperature that left its bounds back on them; clamping in the forward pass would end its gradient."""
        low, high = self.settings.temperature_bounds
        self.log_temperature.clamp_(math.log(low), math.log(high))

    def encode_items(self, columns: Mapping[str, FeatureArray], tables: Mapping[str, torch.Tensor], candidates: int) -> EncodedItems:
        """The items with these features, whose rows point into `tables` (`item/feature`); the first are candidates."""
        x = torch.cat(embed(columns, tables, "item"), dim=1)  # (n, width)
        embedding, vector, bias = self.item(x, candidates)
        if bias is not None and self.id_feature is not None:
            ids = torch.from_numpy(columns[self.id_feature].values[:candidates])
            bias = bias + functional.embedding(ids, tables[f"item/{self.id_feature}{BIAS}"])[:, 0]
        return EncodedItems(embedding, vector, bias)

    def encode_queries(
        self,
        embedding: torch.Tensor,
        seed: torch.Tensor,
        history: torch.Tensor,
        features: Sequence[torch.Tensor],
    ) -> torch.Tensor:
        """(N, D) vectors of N queries.

        embedding   (n, D) input embeddings of some items
        seed        (N,) and history (N, L), newest first: rows of `embedding`, -1 = none
        features    looked-up user and context features, each (N, some width)
        """
        seed_vector, has_seed = functional.embedding(seed.clamp_min(0), embedding), (seed >= 0).float()[:, None]
        present = (history >= 0).float()  # (N, L)
        if history.shape[1]:
            pooled = functional.embedding_bag(
                history.clamp_min(0), embedding, mode="sum", per_sample_weights=self.query.history_weights(present)
            )  # (N, D)
        else:
            pooled = torch.zeros_like(seed_vector)
        has_history = (present.sum(dim=1, keepdim=True) > 0).float()
        x = torch.cat([seed_vector.new_zeros(len(seed), 0), *features], dim=1)
        vector: torch.Tensor = self.query(seed_vector * has_seed, has_seed, pooled, has_history, x)
        return vector

    def encode_batch(self, batch: Batch, tables: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, EncodedItems]:
        """(B, D) query vectors, and the batch's distinct items encoded."""
        items = self.encode_items(batch.items.columns, tables, batch.candidates)
        features = embed(batch.users.columns, tables, "user") + embed(batch.context.columns, tables, "context")
        queries = self.encode_queries(items.embedding, torch.from_numpy(batch.seed), torch.from_numpy(batch.history), features)
        return queries, items


def batch_table_rows(batch: Batch, model: TwoTower) -> dict[str, np.ndarray]:
    """The rows each table must gather for this batch, by table name."""
    rows = {f"item/{name}": values for name, values in batch.items.table_rows.items()}
    rows |= {f"user/{name}": values for name, values in batch.users.table_rows.items()}
    rows |= {f"context/{name}": values for name, values in batch.context.table_rows.items()}
    if model.settings.item_bias and model.id_feature is not None:
        rows[f"item/{model.id_feature}{BIAS}"] = rows[f"item/{model.id_feature}"]
    return rows


def initial_tables(
    dataset: Dataset, settings: ModelSettings, generator: torch.Generator, item_counts: NDArray[np.int64]
) -> dict[str, torch.Tensor]:
    """Fresh embedding tables by name: normal with variance 1/dim, so that a looked-up row has length about 1.

    item_counts   (M,) how often each item is a positive of the examples to learn from

    The item biases start at log(count + 1/2): popularity is known, so it need not be learned.
    """
    query_encoder = dataset.query_encoder
    sides = {"item": dataset.item_encoder, "user": query_encoder.user, "context": query_encoder.context}
    tables = {}
    for side, encoder in sides.items():
        for name, (rows, dim) in encoder.embedded.items():
            width = dim or settings.embedding_dim
            tables[f"{side}/{name}"] = torch.randn(rows, width, generator=generator) * width**-0.5
    id_feature = dataset.item_encoder.id_feature()
    if settings.item_bias and id_feature is not None:
        tables[f"item/{id_feature}{BIAS}"] = _initial_biases(dataset, id_feature, item_counts)
    return tables


def _initial_biases(dataset: Dataset, name: str, item_counts: NDArray[np.int64]) -> torch.Tensor:
    encoder = dataset.item_encoder.features[name].encoder
    ids = dataset.item_features[name]
    assert isinstance(encoder, CategoryEncoder) and isinstance(ids, Ids)
    counts = np.bincount(ids.values, weights=item_counts, minlength=encoder.vocabulary.table_rows)
    biases = np.log(counts + 0.5)
    return torch.from_numpy((biases - biases.mean()).astype(np.float32))[:, None]


def embed(columns: Mapping[str, FeatureArray], tables: Mapping[str, torch.Tensor], side: str) -> list[torch.Tensor]:
    """The looked-up features, each (n, width), in order; a bag becomes the weighted sum of its rows."""
    pieces = []
    for name, column in columns.items():
        if isinstance(column, Dense):
            pieces.append(torch.from_numpy(column.values))
        elif isinstance(column, Bag):
            values, offsets, weights = (torch.from_numpy(array) for array in (column.values, column.offsets, column.weights))
            pieces.append(
                functional.embedding_bag(
                    values.long(), tables[f"{side}/{name}"], offsets, mode="sum", per_sample_weights=weights, include_last_offset=True
                )
            )
        else:
            pieces.append(functional.embedding(torch.from_numpy(column.values), tables[f"{side}/{name}"]))
    return pieces


def input_width(encoder: TableEncoder, settings: ModelSettings) -> int:
    """The width of all features of one table side by side."""
    return sum(dim or settings.embedding_dim for _, dim in encoder.embedded.values()) + sum(encoder.dense_widths.values())


def mlp(width: int, hidden: Sequence[int], *, starts_at_zero: bool) -> nn.Sequential:
    """Linear layers with ReLU between and none on top.

    With `starts_at_zero` the top weights are 0, so that the linear path speaks alone at first.
    """
    layers: list[nn.Module] = []
    for out in hidden:
        layers += [nn.Linear(width, out), nn.ReLU()]
        width = out
    top = layers[-2]
    assert isinstance(top, nn.Linear)
    if starts_at_zero:
        nn.init.zeros_(top.weight)
    nn.init.zeros_(top.bias)
    return nn.Sequential(*layers[:-1])


def normalise(vectors: torch.Tensor) -> torch.Tensor:
    """The vectors at length 1."""
    length: torch.Tensor = vectors.norm(dim=1, keepdim=True)
    return vectors / length.clamp_min(NORM_FLOOR)
