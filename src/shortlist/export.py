"""A finished run -> the content of a bundle: vectors, tables, towers as ONNX, index. The only writer of bundles.

The graphs hold the dense layers alone; lookups stay in numpy (features/lookup.py), over memory-mapped tables.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from shortlist import __version__
from shortlist.bundle import FORMAT, ITEM_INPUTS, ITEM_OUTPUTS, QUERY_INPUTS, QUERY_OUTPUTS, ROWS_AXIS
from shortlist.catalogue import Catalogue, read_catalogue
from shortlist.config import dump_config, overridden
from shortlist.encode import Corpus, encode_catalogue, encode_queries
from shortlist.errors import BundleError, ConfigError
from shortlist.features.arrays import flat_arrays
from shortlist.index.contract import Index
from shortlist.index.kinds import build_index
from shortlist.parquet_steps import write_in_steps
from shortlist.run import POPULARITY, Run
from shortlist.saved_arrays import save_arrays
from shortlist.search_graphs import SearchedItem, SearchingQuery
from shortlist.store import publish_version
from shortlist.towers import input_width

_OPSET = 17


@dataclass(frozen=True)
class Published:
    """What a publication did."""

    folder: Path
    items: int
    new_items: int  # not in the catalogue that training saw: found by their content
    gone_items: int  # in that catalogue, and no more


def publish_run(run: Run, store: Path, *, items: str | None = None, overrides: Sequence[str] = ()) -> Published:
    """A new live version in `store`, of the run's own catalogue or of the newer snapshot at `items`.

    overrides  `index.key=value`: how this version is searched, where that differs from the run's own settings
    Raises     DataError for a snapshot that breaks a rule; ConfigError for an override of another section; BundleError where another
               writer holds the store
    """
    run = _with_index(run, overrides)
    catalogue = run.items if items is None else read_catalogue(items, run.items.id_column)
    kept = int((run.items.rows_of(catalogue.ids) >= 0).sum())  # before anything is written: it refuses ids of another type
    facts = {
        "bundle": FORMAT,
        "shortlist": __version__,
        "items": len(catalogue),
        "item_id": catalogue.id_column,
        "user_id": None if run.users is None else run.users.id_column,
        "trained_on": {key: run.facts[key] for key in ("examples", "first_time", "last_time", "fingerprint")},
    }
    corpus = encode_catalogue(run.model, run.tables, run.item_encoder, catalogue.frame)
    asked = asked_vectors(run, catalogue, corpus)
    try:
        index, facts["index"] = build_index(corpus.vector, run.config.index, asked)
    except ValueError as error:
        raise BundleError(f"the item vectors of {run.folder} cannot be searched: {error}") from None
    folder = publish_version(store, lambda target: write_bundle(target, run, catalogue, corpus, index, asked), facts=facts)
    return Published(folder, len(catalogue), len(catalogue) - kept, len(run.items) - kept)


def _with_index(run: Run, overrides: Sequence[str]) -> Run:
    trained = [override for override in overrides if not override.strip().startswith("index.")]
    if trained:
        raise ConfigError(f"only [index] may be set anew when publishing, the rest is as it was trained: got {trained[0]!r}; train again")
    return replace(run, config=overridden(run.config, overrides)) if overrides else run


def asked_vectors(run: Run, catalogue: Catalogue, corpus: Corpus) -> NDArray[np.float32]:
    """(N, S) the run's kept queries as its query tower sees them over `catalogue`: what an index is tuned to and proved on."""
    if run.asked is None or not len(run.asked):
        return np.zeros((0, corpus.vector.shape[1]), np.float32)
    queries = run.asked
    if catalogue is not run.items:  # a newer snapshot: the same items in other rows, some of them gone
        queries = queries.with_item_rows(catalogue.rows_of(run.items.ids).astype(np.int32))
    users = run.query_encoder.user.encode_with_missing(run.users.frame) if run.users is not None else {}
    return encode_queries(run.model, run.tables, queries, user_features=users, embedding=corpus.embedding)


def write_bundle(folder: Path, run: Run, catalogue: Catalogue, corpus: Corpus, index: Index, asked: NDArray[np.float32]) -> None:
    """Writes the files of a bundle into the empty `folder`; `asked` (N, S) are the vectors of held-out queries."""
    (folder / "config.toml").write_text(dump_config(run.config), encoding="utf-8")
    run.item_encoder.save(folder, "item_features")
    run.query_encoder.save(folder)
    write_in_steps(folder / "items.parquet", catalogue.frame)
    if run.users is not None:
        write_in_steps(folder / "users.parquet", run.users.frame.select(run.users.id_column))
        save_arrays(folder / "user_features", flat_arrays(run.query_encoder.user.encode_with_missing(run.users.frame)))
    histories = run.folder / "histories.parquet"
    if histories.exists():
        (folder / "histories.parquet").write_bytes(histories.read_bytes())
    if (run.folder / POPULARITY).exists():  # runs of before it was counted are published without
        counts, rows = np.load(run.folder / POPULARITY, allow_pickle=False), run.items.rows_of(catalogue.ids)
        np.save(folder / POPULARITY, np.where(rows >= 0, counts[rows], 0), allow_pickle=False)
    np.save(folder / "embeddings.npy", corpus.embedding, allow_pickle=False)
    np.save(folder / "vectors.npy", corpus.vector, allow_pickle=False)
    np.save(folder / "queries.npy", asked, allow_pickle=False)
    (folder / "index").mkdir()
    index.save(folder / "index")
    save_arrays(folder / "tables", {name: table.numpy() for name, table in run.tables.items()})
    export_graph(SearchedItem(run.model), _item_example(run), ITEM_INPUTS, ITEM_OUTPUTS, folder / "item_tower.onnx")
    export_graph(SearchingQuery(run.model), _query_example(run), QUERY_INPUTS, QUERY_OUTPUTS, folder / "query_tower.onnx")


def _item_example(run: Run) -> tuple[torch.Tensor, ...]:
    settings = run.config.model
    return torch.zeros(2, input_width(run.item_encoder, settings)), torch.zeros(2, 1), torch.zeros(2, settings.hidden[-1])


def _query_example(run: Run) -> tuple[torch.Tensor, ...]:
    settings, encoder = run.config.model, run.query_encoder
    dim, last = settings.hidden[-1], max(encoder.history_last, 1)
    width = input_width(encoder.user, settings) + input_width(encoder.context, settings)
    return torch.zeros(2, dim), torch.zeros(2, 1), torch.zeros(2, last, dim), torch.zeros(2, last), torch.zeros(2, width)


def export_graph(
    module: nn.Module, example: tuple[torch.Tensor, ...], inputs: tuple[str, ...], outputs: tuple[str, ...], path: Path
) -> None:
    """Writes the module as an ONNX graph for any number of rows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter announces its own successor; docs/decisions.md says why it stays
        torch.onnx.export(
            module.eval(),
            example,
            str(path),
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes={name: {0: ROWS_AXIS} for name in (*inputs, *outputs)},
            opset_version=_OPSET,
            dynamo=False,
        )
