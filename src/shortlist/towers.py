"""The two towers: what a query and an item look like as vectors, whose inner product over the temperature is the logit.

    item:   x = [features]             e = E x          v = normalise( MLP(x) + e )
    query:  x = [e_seed, h, features]  h = sum_p w_p e_p over the history, w = softmax of learned weights by position
                                                        u = normalise( MLP(x) + A e_seed + H h + F features )

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
from shortlist.dataset import Dataset
from shortlist.errors import ConfigError
from shortlist.features.arrays import Bag, Dense, FeatureArray, Ids
from shortlist.features.encoder import TableEncoder
from shortlist.features.shown_popularity import TASTE
from shortlist.features.vocabulary import CategoryEncoder
from shortlist.kernels import BagTensors
from shortlist.layers import HistoryPooling, hidden_layers, normalise, through_layers, top_layer
from shortlist.queries import QueryEncoder
from shortlist.sections import ModelSettings
from shortlist.tables import Sources
from shortlist.tower_inputs import Lookup, Piece, beside, padded

START_LENGTH = 0.3  # of the output for a query that says nothing
BIAS = "#bias"  # suffix of the table of item biases
OUTPUT = "#output"  # suffix of the table of item vectors, where the item tower is one
MATCH = "#match"  # suffix of the table that says what the content code of an item counts: w in encode.py


@dataclass(frozen=True)
class EncodedItems:
    """What the item tower knows of n items, the first c of which are candidates."""

    embedding: torch.Tensor | None  # (n, D) e: what queries see of them; None = it was not asked for
    vector: torch.Tensor  # (c, D) v, of length 1
    bias: torch.Tensor | None  # (c,) added to the logit; None = the model has no biases


class ItemTower(nn.Module):
    """Item features -> input embedding e, vector v, and the content's part of the bias."""

    def __init__(self, width: int, settings: ModelSettings, *, learns_bias: bool) -> None:
        super().__init__()
        dim = settings.hidden[-1]
        self.embedding = nn.Linear(width, dim, bias=False)
        self.is_table = settings.item_tower == "table"
        self.mlp = None if self.is_table else hidden_layers(width, settings)
        self.linear_path = settings.linear_path
        self.bias = nn.Linear(width, 1, bias=False) if learns_bias and not self.is_table else None
        if self.bias is not None:
            nn.init.zeros_(self.bias.weight)

    def forward(
        self, x: torch.Tensor, candidates: int, output: torch.Tensor | None = None, *, items: int | None = None, is_seen: bool = True
    ) -> tuple[torch.Tensor | None, torch.Tensor, torch.Tensor | None]:
        """(n, width) -> e (n, D) or None, and of the first c = `candidates` rows v (c, D) and content bias (c,) or None.

        output    (c, D) rows of the output table, for the tower that is one
        items     n, where the rows of x behind it are padding
        is_seen   whether e is wanted; the linear path wants it in any case
        """
        embedding = _first_rows(self.embedding(x), items).float() if is_seen or self.linear_path else None
        if self.mlp is None:
            assert output is not None
            return embedding, normalise(output), None
        # what stands behind the candidates gives steps of nearly one size one shape; it is cut off below
        x = _first_rows(x, candidates if items is None else padded(candidates))
        deep = through_layers(self.mlp, x)
        along = _first_rows(embedding, candidates) if self.linear_path and embedding is not None else None
        vector = normalise(deep, along, count=candidates)
        return embedding, vector, None if self.bias is None else self.bias(x)[:candidates].float()[:, 0]


class QueryTower(nn.Module):
    """Seed, history and query features -> vector u of length 1."""

    def __init__(self, width: int, history_last: int, settings: ModelSettings) -> None:
        super().__init__()
        dim = settings.hidden[-1]
        self.mlp = hidden_layers(2 * dim + 2 + width, settings)
        # A query without seed and history must not be the zero vector: its direction has a gradient of 1 / NORM_FLOOR, and
        # one such gradient would stay in Adagrad's sums and freeze the layer.
        nn.init.normal_(top_layer(self.mlp).bias, std=START_LENGTH * dim**-0.5)
        self.seed_map = nn.Linear(dim, dim, bias=False) if settings.linear_path else None
        self.history_map = nn.Linear(dim, dim, bias=False) if settings.linear_path else None
        self.feature_map = nn.Linear(width, dim, bias=False) if settings.linear_path and width else None
        for linear in (self.seed_map, self.history_map):
            if linear is not None:
                nn.init.eye_(linear.weight)
        self.pooling = HistoryPooling(history_last, settings)

    def forward(
        self, seed: torch.Tensor, has_seed: torch.Tensor, history: torch.Tensor, has_history: torch.Tensor, x: torch.Tensor
    ) -> torch.Tensor:
        """seed (N, D) and pooled history (N, D), 0 where none; has_* (N, 1) as 0 or 1; x (N, width) -> u (N, D)."""
        deep = through_layers(self.mlp, torch.cat([seed, history, has_seed, has_history, x], dim=1))
        if self.seed_map is None or self.history_map is None:
            return normalise(deep)
        linear = self.seed_map(seed).float() + self.history_map(history).float()
        return normalise(deep, linear if self.feature_map is None else linear + self.feature_map(x).float())

    def of_features(self, x: torch.Tensor) -> torch.Tensor:
        """x (N, width) -> u (N, D), as `forward` gives it for queries without seed and history: zeros are not multiplied."""
        return normalise(through_layers(self.mlp, x), None if self.feature_map is None else self.feature_map(x).float())


class TwoTower(nn.Module):
    """Both towers and the temperature. The embedding tables live outside (tables.py) and come in as `Sources`."""

    def __init__(self, item_encoder: TableEncoder, query_encoder: QueryEncoder, settings: ModelSettings) -> None:
        super().__init__()
        if settings.temperature is None:
            raise ValueError("model.temperature must be resolved: call for_log(config, examples) first")
        self.settings = settings
        self.history_last = query_encoder.history_last
        self.sees_items = query_encoder.has_seed or query_encoder.history_last > 0
        self.id_feature = item_encoder.id_feature()
        item_width = input_width(item_encoder, settings)
        query_width = input_width(query_encoder.user, settings) + input_width(query_encoder.context, settings)
        self.item = ItemTower(item_width, settings, learns_bias=learns_bias(settings, self.id_feature))
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

    def encode_items(
        self,
        columns: Mapping[str, FeatureArray],
        tables: Sources,
        candidates: int,
        transposed: Mapping[str, Bag] | None = None,
        *,
        is_seen: bool = True,
    ) -> EncodedItems:
        """The items with these features, whose rows point into `tables` (`item/feature`); the first are candidates.

        transposed   of each bag, where the tables are to learn
        is_seen      whether queries are to see them: their input embedding is wanted
        """
        pieces, items = lookups(columns, tables, "item", transposed), len(next(iter(columns.values())))
        kind = self._input_kind()
        x = beside(pieces, rows=items if kind == torch.float32 else padded(items), kind=kind)  # (n or more, width)
        ids = None if self.id_feature is None else torch.from_numpy(columns[self.id_feature].values[:candidates])
        output = None
        if self.item.is_table and ids is not None:
            output = _rows_of(tables, f"item/{self.id_feature}{OUTPUT}", ids)
        embedding, vector, bias = self.item(x, candidates, output, items=items, is_seen=is_seen)
        if self.settings.item_bias and ids is not None:
            of_id = _rows_of(tables, f"item/{self.id_feature}{BIAS}", ids)[:, 0]
            bias = of_id if bias is None else bias + of_id
        return EncodedItems(embedding, vector, bias)

    def encode_queries(
        self,
        embedding: torch.Tensor | None,
        seed: torch.Tensor,
        history: torch.Tensor,
        features: Sequence[Piece],
    ) -> torch.Tensor:
        """(N, D) vectors of N queries.

        embedding   (n, D) input embeddings of some items; None will do where the model's queries see none
        seed        (N,) and history (N, L), newest first: rows of `embedding`, -1 = none
        features    user and context features, each (N, some width)
        """
        x = beside(features, rows=len(seed), kind=self._input_kind()) if features else torch.zeros(len(seed), 0, device=seed.device)
        if not self.sees_items and not self.settings.cross_layers:
            return self.query.of_features(x)
        assert embedding is not None, "queries that see items need their embeddings"
        seed_vector, has_seed = functional.embedding(seed.clamp_min(0), embedding), (seed >= 0).float()[:, None]
        present = (history >= 0).float()  # (N, L)
        pooled = self._pooled(embedding, seed_vector * has_seed, history, present)
        has_history = (present.sum(dim=1, keepdim=True) > 0).float()
        vector: torch.Tensor = self.query(seed_vector * has_seed, has_seed, pooled, has_history, x)
        return vector

    def _input_kind(self) -> torch.dtype:
        """What the towers' inputs are laid out in: cross layers multiply theirs in float32."""
        is_narrow = torch.is_autocast_enabled("cpu") and not self.settings.cross_layers
        return torch.get_autocast_dtype("cpu") if is_narrow else torch.float32

    def _pooled(self, embedding: torch.Tensor, seed: torch.Tensor, history: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        """(N, D) the histories pooled; where weights go by place alone, without a copy of every item's vector."""
        if not history.shape[1]:
            return torch.zeros_like(seed)
        pooling, rows = self.query.pooling, history.clamp_min(0)
        if pooling.sees_content:
            pooled: torch.Tensor = pooling(seed, functional.embedding(rows, embedding), present)
            return pooled
        return functional.embedding_bag(rows, embedding, mode="sum", per_sample_weights=pooling.weights(present))

    def encode_batch(self, batch: Batch, tables: Sources) -> tuple[torch.Tensor, EncodedItems]:
        """(B, D) query vectors, and the batch's distinct items encoded."""
        is_seen = self.sees_items or self.settings.cross_layers > 0
        items = self.encode_items(batch.items.columns, tables, batch.candidates, batch.items.transposed, is_seen=is_seen)
        users = lookups(batch.users.columns, tables, "user", batch.users.transposed)
        features = users + lookups(batch.context.columns, tables, "context", batch.context.transposed)
        embedding = items.embedding
        if embedding is not None and not self.sees_items:
            embedding = embedding.detach()  # else a gradient of zeros would go all the way
        queries = self.encode_queries(embedding, torch.from_numpy(batch.seed), torch.from_numpy(batch.history), features)
        return queries, items


def batch_table_rows(batch: Batch) -> dict[str, NDArray[np.int64]]:
    """The rows of each table that a feature of this batch is looked up in, by table name."""
    sides = {"item": batch.items, "user": batch.users, "context": batch.context}
    return {f"{side}/{name}": rows for side, features in sides.items() for name, rows in features.table_rows.items()}


def batch_id_rows(batch: Batch, model: TwoTower) -> dict[str, NDArray[np.int64]]:
    """The rows of each table beside the features' that this batch needs, by table name."""
    wanted = extra_tables(model.settings, model.id_feature)
    names = [name for name in (f"item/{model.id_feature}{suffix}" for suffix in (BIAS, OUTPUT)) if name in wanted]
    return {name: batch.items.table_rows[model.id_feature] for name in names if model.id_feature is not None}


def learns_bias(settings: ModelSettings, id_feature: str | None) -> bool:
    """Is the items' bias learned? Else there is none, or it is the popularity of late, which needs ids (calibration.py)."""
    return settings.item_bias and (settings.popularity == "learned" or id_feature is None)


def extra_tables(settings: ModelSettings, id_feature: str | None) -> list[str]:
    """The names of the tables beside the features', each with the rows of the id table. Raises ConfigError without an id."""
    if settings.item_tower == "table" and id_feature is None:
        raise ConfigError('model.item_tower = "table" learns one vector an id: got no item feature of kind "id"; name one')
    if id_feature is None:
        return []
    wanted = {BIAS: settings.item_bias, OUTPUT: settings.item_tower == "table", MATCH: bool(settings.match_dim)}
    return [f"item/{id_feature}{suffix}" for suffix, is_wanted in wanted.items() if is_wanted]


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
    if settings.match_dim:
        tables[TASTE] = torch.zeros(1, 2)  # popularity counts the same for all until calibration says otherwise
    for table in extra_tables(settings, id_feature):
        assert id_feature is not None
        if table.endswith(MATCH):
            tables[table] = torch.zeros(len(tables[f"item/{id_feature}"]), 1)  # matches say nothing until they are calibrated
        elif table.endswith(BIAS):
            tables[table] = _initial_biases(dataset, id_feature, item_counts)
        else:
            width = settings.hidden[-1]
            tables[table] = torch.randn(len(tables[f"item/{id_feature}"]), width, generator=generator) * width**-0.5
    return tables


def _initial_biases(dataset: Dataset, name: str, item_counts: NDArray[np.int64]) -> torch.Tensor:
    encoder = dataset.item_encoder.features[name].encoder
    ids = dataset.item_features[name]
    assert isinstance(encoder, CategoryEncoder) and isinstance(ids, Ids)
    counts = np.bincount(ids.values, weights=item_counts, minlength=encoder.vocabulary.table_rows)
    biases = np.log(counts + 0.5)
    return torch.from_numpy((biases - biases.mean()).astype(np.float32))[:, None]


def _first_rows(x: torch.Tensor, count: int | None) -> torch.Tensor:
    """The first `count` rows of x, or all: then it is x itself, whose gradient need not be copied into zeros."""
    return x if count is None or count >= len(x) else x[:count]


def _rows_of(tables: Sources, name: str, rows: torch.Tensor) -> torch.Tensor:
    """(n, dim) of a table that is no feature's."""
    table = tables[name]
    assert isinstance(table, torch.Tensor)
    return functional.embedding(rows, table)


def lookups(columns: Mapping[str, FeatureArray], tables: Sources, side: str, transposed: Mapping[str, Bag] | None = None) -> list[Piece]:
    """The features, each (n, width), in order, those with a table to be looked up; a bag becomes the weighted sum of its rows.

    transposed   of each bag, where the tables are to learn
    """
    pieces: list[Piece] = []
    for name, column in columns.items():
        table = None if isinstance(column, Dense) else tables[f"{side}/{name}"]
        if table is None:
            pieces.append(torch.from_numpy(column.values))
        elif not isinstance(column, Bag):
            pieces.append(Lookup(table, torch.from_numpy(column.values)))
        else:
            pieces.append(Lookup(table, bag_tensors(column), None if transposed is None else bag_tensors(transposed[name])))
    return pieces


def bag_tensors(bag: Bag) -> BagTensors:
    """The bag's arrays as they enter the sums, without a copy but of the offsets."""
    return torch.from_numpy(bag.values), torch.from_numpy(bag.offsets.astype(np.int32)), torch.from_numpy(bag.weights)


def input_width(encoder: TableEncoder, settings: ModelSettings) -> int:
    """The width of all features of one table side by side."""
    return sum(dim or settings.embedding_dim for _, dim in encoder.embedded.values()) + sum(encoder.dense_widths.values())
