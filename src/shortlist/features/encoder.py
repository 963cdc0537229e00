"""All features of one table together: fit on the training window, encode any frame, save, open.

Bulk preparation, bulk embedding and a single online request all go through `TableEncoder.encode`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from shortlist.errors import DataError
from shortlist.features.arrays import FeatureArray
from shortlist.features.content_codes import ContentCodes
from shortlist.features.number import NumberEncoder, VectorEncoder, fit_number, fit_vector
from shortlist.features.saved_values import values_from_arrays, values_to_arrays
from shortlist.features.text import TextEncoder, fit_text
from shortlist.features.vocabulary import CategoriesEncoder, CategoryEncoder, Vocabulary, fit_vocabulary, list_values
from shortlist.sections import FeatureSettings

ColumnEncoder = CategoryEncoder | CategoriesEncoder | TextEncoder | NumberEncoder | VectorEncoder
BUCKET_SUFFIX = "#bucket"
CONTENT = "#content"  # no name of a feature


@dataclass(frozen=True)
class Feature:
    """A feature of this table: where its values stand and how wide its embedding is."""

    column: str
    settings: FeatureSettings
    encoder: ColumnEncoder


@dataclass(frozen=True)
class TableEncoder:
    """The fitted features of one table, by name, in the order of the settings."""

    features: dict[str, Feature]
    content: ContentCodes | None = None  # of items that match by their words

    def encode(self, frame: pl.DataFrame) -> dict[str, FeatureArray]:
        """One entry a row of `frame` for each array. Raises DataError where a column is not there."""
        columns: dict[str, FeatureArray] = {}
        for name, feature in self.features.items():
            if feature.column not in frame.columns:
                raise DataError(f"feature {name!r} needs column {feature.column!r}: got {', '.join(frame.columns) or 'no columns'}")
            values = frame[feature.column]
            columns[name] = feature.encoder.encode(values)
            if isinstance(feature.encoder, NumberEncoder) and len(feature.encoder.edges):
                columns[name + BUCKET_SUFFIX] = feature.encoder.encode_buckets(values)
        return columns

    def encode_rows(self, frame: pl.DataFrame, rows: slice) -> dict[str, FeatureArray]:
        """As `encode`, of some rows; a message counts rows from the first of the frame."""
        try:
            return self.encode(frame[rows])
        except DataError:
            self.encode(frame)  # raises as well
            raise

    def encode_with_missing(self, frame: pl.DataFrame) -> dict[str, FeatureArray]:
        """As `encode`, with one more entry at the end that is missing in every feature: what row -1 takes."""
        absent = pl.DataFrame({column: pl.Series([None], dtype=dtype) for column, dtype in frame.schema.items()})
        return self.encode(pl.concat([frame, absent]))

    def codes(self, frame: pl.DataFrame) -> NDArray[np.float32] | None:
        """(n, m) the content codes of the rows; None where items do not match by their words."""
        return None if self.content is None else self.content.encode(frame)

    @property
    def embedded(self) -> dict[str, tuple[int, int | None]]:
        """(rows, dim or None for the model's default) of the embedding table behind each array that has one."""
        tables: dict[str, tuple[int, int | None]] = {}
        for name, feature in self.features.items():
            encoder, dim = feature.encoder, feature.settings.dim
            if isinstance(encoder, (CategoryEncoder, CategoriesEncoder)):
                tables[name] = (encoder.vocabulary.table_rows, dim)
            elif isinstance(encoder, TextEncoder):
                tables[name] = (encoder.table_rows, dim)
            elif isinstance(encoder, NumberEncoder) and len(encoder.edges):
                tables[name + BUCKET_SUFFIX] = (encoder.table_rows, dim)
        return tables

    @property
    def dense_widths(self) -> dict[str, int]:
        """The width of each array of plain numbers."""
        widths = {}
        for name, feature in self.features.items():
            if isinstance(feature.encoder, NumberEncoder):
                widths[name] = 2
            elif isinstance(feature.encoder, VectorEncoder):
                widths[name] = feature.encoder.width + 1
        return widths

    def id_feature(self) -> str | None:
        """The name of the feature of kind `id`, if there is one."""
        return next((name for name, feature in self.features.items() if feature.settings.kind == "id"), None)

    def save(self, folder: Path, name: str) -> None:
        """Writes `name`.json and `name`.safetensors into `folder`."""
        facts, arrays = {}, {}
        for feature_name, feature in self.features.items():
            scalars, parts = _encoder_state(feature.encoder)
            settings = {key: getattr(feature.settings, key) for key in feature.settings.__struct_fields__}
            facts[feature_name] = {"column": feature.column, "settings": settings, **scalars}
            arrays.update({f"{feature_name}/{part}": np.ascontiguousarray(array) for part, array in parts.items()})
        if self.content is not None:
            facts[CONTENT] = {"columns": self.content.columns, "of_others": self.content.of_others}
            parts = {"frequency": self.content.frequency, "directions": self.content.directions, **values_to_arrays(self.content.words)}
            arrays |= {f"{CONTENT}/{part}": np.ascontiguousarray(array) for part, array in parts.items()}
        (folder / f"{name}.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
        save_file(arrays, folder / f"{name}.safetensors")


def open_encoder(folder: Path, name: str) -> TableEncoder:
    """The encoder that `TableEncoder.save` wrote."""
    facts = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    arrays = load_file(folder / f"{name}.safetensors")
    features, content = {}, facts.pop(CONTENT, None)
    for feature_name, fact in facts.items():
        parts = _parts(arrays, feature_name)
        settings = msgspec.convert(fact["settings"], FeatureSettings)
        features[feature_name] = Feature(fact["column"], settings, _encoder_from_state(settings, fact, parts))
    return TableEncoder(features, None if content is None else _open_content(content, _parts(arrays, CONTENT)))


def fit_encoder(
    features: Mapping[str, tuple[str, FeatureSettings]],
    frame: pl.DataFrame,
    *,
    seen: NDArray[np.bool_],
    chosen: NDArray[np.bool_] | None = None,
) -> TableEncoder:
    """The encoder of `features` (name -> column, settings), fitted on the rows of `frame` that the window saw.

    seen     (n,) rows that occur in the training window in any role: vocabularies, statistics
    chosen   (n,) rows whose id may become known; None = `seen`. An item that nobody chose has no id of its own: its
             vector would learn nothing but "not chosen" (it is never a positive), and so would be lost when it is new.
    """
    if not features:
        return TableEncoder({})
    frame = frame.select(sorted({column for column, _ in features.values()}))
    window = frame if seen.all() else frame.filter(seen)
    named = window if chosen is None else frame.filter(chosen)
    fitted = {}
    for name, (column, settings) in features.items():
        source = named if settings.kind == "id" else window
        fitted[name] = Feature(column, settings, _fit_column(source[column], settings))
    return TableEncoder(fitted)


def _parts(arrays: dict[str, NDArray[Any]], name: str) -> dict[str, NDArray[Any]]:
    return {key[len(name) + 1 :]: array for key, array in arrays.items() if key.startswith(f"{name}/")}


def _open_content(fact: dict[str, Any], parts: dict[str, NDArray[Any]]) -> ContentCodes:
    frequency, directions = parts.pop("frequency"), parts.pop("directions")
    return ContentCodes(
        tuple((column, kind) for column, kind in fact["columns"]), values_from_arrays(parts), frequency, fact["of_others"], directions
    )


def _fit_column(values: pl.Series, settings: FeatureSettings) -> ColumnEncoder:
    match settings.kind:
        case "id" | "category":
            return CategoryEncoder(fit_vocabulary(values, settings))
        case "categories":
            return CategoriesEncoder(fit_vocabulary(list_values(values), settings))
        case "text":
            return fit_text(values, settings)
        case "number":
            return fit_number(values, settings)
        case "vector":
            return fit_vector(values)
        case _:
            raise AssertionError(f"{settings.kind} has no encoder of its own: it shares the item features'")


def _encoder_state(encoder: ColumnEncoder) -> tuple[dict[str, Any], dict[str, NDArray[np.generic]]]:
    match encoder:
        case CategoryEncoder() | CategoriesEncoder():
            return {}, values_to_arrays(encoder.vocabulary.values)
        case TextEncoder():
            return {}, {"inverse_frequency": encoder.inverse_frequency}
        case NumberEncoder():
            return {"mean": encoder.mean, "deviation": encoder.deviation}, {"edges": encoder.edges}
        case VectorEncoder():
            return {"width": encoder.width}, {}


def _encoder_from_state(settings: FeatureSettings, fact: dict[str, Any], parts: dict[str, Any]) -> ColumnEncoder:
    match settings.kind:
        case "id" | "category":
            return CategoryEncoder(Vocabulary(values_from_arrays(parts), settings.unknown_buckets))
        case "categories":
            return CategoriesEncoder(Vocabulary(values_from_arrays(parts), settings.unknown_buckets))
        case "text":
            return TextEncoder(parts["inverse_frequency"], settings.max_tokens, settings.character_ngrams)
        case "number":
            return NumberEncoder(fact["mean"], fact["deviation"], parts["edges"])
        case "vector":
            return VectorEncoder(fact["width"])
        case _:
            raise AssertionError(f"{settings.kind} has no encoder of its own")
