"""Settings from TOML, overridden by `section.key=value`, completed by what the log is like, saved with what they made.

Unknown keys and wrong types are errors that name the nearest key. Nothing changes after load.
"""

from __future__ import annotations

import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import tomli_w

from shortlist.config_rules import refuse_contradictions
from shortlist.errors import ConfigError
from shortlist.sections import (
    CONTENT_KINDS,
    FEWEST_TO_HOLD_OUT,
    LARGE_LOG,
    MATCH_DIM,
    PATHS,
    SMALL_LOG,
    Config,
    feature_settings,
    nearest_of,
)


def load_config(path: Path, overrides: Iterable[str] = ()) -> Config:
    """The settings in the TOML file at `path`, with `section.key=value` overrides applied.

    Paths to tables (PATHS) come back absolute, taken from the file's own folder.
    Raises ConfigError for a missing file, broken TOML, an unknown key (naming the nearest) or a wrong type.
    """
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"no settings file at {path} ({error.strerror}): name a shortlist.toml, or make one with `shortlist fetch`"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} must be TOML: {error}") from None
    for override in overrides:
        _apply_override(tree, override)
    folder = path.resolve().parent
    for section, keys in PATHS.items():
        values = tree.get(section)
        for key in keys:
            if isinstance(values, dict) and isinstance(values.get(key), str):
                values[key] = str(folder / values[key])
    return config_from_tree(tree, where=str(path))


def config_from_tree(tree: Mapping[str, Any], where: str = "settings") -> Config:
    """The settings in a plain nested mapping. Raises ConfigError as `load_config` does."""
    _refuse_unknown_keys(tree, Config, where, "")
    columns, evaluate = tree.get("columns"), tree.get("evaluate", {})
    if isinstance(columns, Mapping) and "time" not in columns and isinstance(evaluate, Mapping) and "protocol" not in evaluate:
        tree = {**tree, "evaluate": {**evaluate, "protocol": "holdout"}}  # a log without times has no windows
    model = tree.get("model", {})
    if isinstance(columns, Mapping) and columns.get("time") is not None and isinstance(model, Mapping) and "popularity" not in model:
        tree = {**tree, "model": {**model, "popularity": "recent"}}  # what is popular drifts, and times say how
    try:
        config = msgspec.convert(tree, Config, strict=True)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {error}") from None
    refuse_contradictions(config, where)
    return config


def config_tree(config: Config) -> dict[str, Any]:
    """The settings as plain nested values, defaults included, absent ones left out; `config_from_tree` reads it back."""
    tree = _without_none(msgspec.to_builtins(config, builtin_types=(date,)))
    assert isinstance(tree, dict)
    return tree


def overridden(config: Config, overrides: Iterable[str]) -> Config:
    """The settings with `section.key=value` overrides applied, as `load_config` does; a relative path is of the working folder."""
    tree = config_tree(config)
    for override in overrides:
        _apply_override(tree, override)
    return config_from_tree(tree)


def for_log(config: Config, examples: int) -> Config:
    """The settings with those set that are absent and depend on others or on how many examples there are to train on; others stay."""
    model, train, negatives, columns = config.model, config.train, config.negatives, config.columns
    is_small = examples <= SMALL_LOG
    if model.temperature is None:
        low, high = model.temperature_bounds
        model = msgspec.structs.replace(model, temperature=min(max(0.25 if is_small else 0.1, low), high))
    if model.history_dropout is None:
        model = msgspec.structs.replace(model, history_dropout=0.0 if is_small else 0.3)
    if model.id_start is None:
        model = msgspec.structs.replace(model, id_start="spectral" if is_small else "random")
    if model.match_dim is None:
        kinds = {settings.kind for settings in feature_settings(config.item).values()}
        shows_items = any(settings.kind in ("item", "items") for settings in feature_settings(config.query).values())
        matches = model.item_tower == "content" and bool(kinds & CONTENT_KINDS) and shows_items and examples <= LARGE_LOG
        model = msgspec.structs.replace(model, match_dim=MATCH_DIM if matches and _is_calibrated(config, examples) else 0)
    if train.both_ways_within is None:
        has_sessions = columns.user is not None and columns.time is not None and columns.seed is columns.history is None
        train = msgspec.structs.replace(train, both_ways_within=1800.0 if is_small and has_sessions else 0.0)
    if negatives.index_from is None:
        # items that are no negatives have no level but what calibration finds, and few held-out choices, of a small log, hardly tell it
        can = _is_calibrated(config, examples) and negatives.kind == "mixed" and negatives.mined_from is None and not is_small
        negatives = msgspec.structs.replace(negatives, index_from="chosen" if can else "corpus")
    return msgspec.structs.replace(config, model=model, train=train, negatives=negatives)


def _is_calibrated(config: Config, examples: int) -> bool:
    """Will choices be held out that say what training cannot know, and ids be there to keep it?"""
    has_ids = any(settings.kind == "id" for settings in feature_settings(config.item).values())
    holds_out = config.train.validation_fraction > 0 and examples >= FEWEST_TO_HOLD_OUT
    return config.train.calibrate and holds_out and config.model.item_bias and has_ids


def dump_config(config: Config) -> str:
    """The settings as TOML text that `load_config` reads back to an equal value."""
    return tomli_w.dumps(config_tree(config))


def _apply_override(tree: dict[str, Any], override: str) -> None:
    name, equals, text = override.partition("=")
    keys = name.strip().split(".")
    if not equals or len(keys) < 2 or not all(keys):
        raise ConfigError(f"an override must read section.key=value: got {override!r}")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # a bare word is a string
    node = tree
    for key in keys[:-1]:
        node = node.setdefault(key, {})
        if not isinstance(node, dict):
            raise ConfigError(f"override {override!r}: {key!r} is a value, not a section")
    node[keys[-1]] = value


def _refuse_unknown_keys(tree: Any, kind: Any, where: str, path: str) -> None:
    """Raise for the first key that the section does not know; msgspec would not name the nearest."""
    if isinstance(kind, types.UnionType):
        kind = next((part for part in typing.get_args(kind) if _is_section(part)), kind)
    if not isinstance(tree, Mapping):
        return
    if not _is_section(kind):
        arguments = typing.get_args(kind)
        if typing.get_origin(kind) is dict:
            for key, value in tree.items():
                _refuse_unknown_keys(value, arguments[1], where, f"{path}{key}.")
        return
    fields = {field.name: field.type for field in msgspec.structs.fields(kind)}
    for key, value in tree.items():
        if key not in fields:
            raise ConfigError(f"{where}: unknown key {path}{key}{nearest_of(key, fields)}; known here: {', '.join(fields)}")
        _refuse_unknown_keys(value, fields[key], where, f"{path}{key}.")


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(part) for key, part in value.items() if part is not None}
    if isinstance(value, (list, tuple)):
        return [_without_none(part) for part in value]
    return value
