"""Frozen settings: one class per stage, read from TOML, overridden by `section.key=value`, saved with what they made.

Unknown keys and wrong types are errors that name the nearest key. Nothing changes after load. The file is long because every
rule between settings stands here, with its reason, and nowhere else.
"""

from __future__ import annotations

import difflib
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import Any, Literal

import msgspec
import tomli_w

from shortlist.errors import ConfigError

LossDesign = Literal["expected_count", "all_corrected", "inclusion", "paper_literal", "uncorrected"]
Mask = Literal["item", "same_query", "known"]
FEWEST_TO_HOLD_OUT = 10  # examples: a tenth of fewer is none
LARGE_LOG = 100_000  # examples; from there on the towers learn what words mean
_MATCH_DIM = 256
SMALL_LOG = 30_000  # examples; such logs are learned more softly, and their sessions both ways
FeatureKind = Literal["id", "category", "categories", "text", "number", "vector", "item", "items"]
DayCount = Literal["calendar", "active"]
HoldoutUnit = Literal["rows", "pairs", "users", "items"]
PATHS = {"data": ("events", "items", "users"), "evaluate": ("next_events", "next_items")}
CONTENT_KINDS: frozenset[str] = frozenset({"text", "category", "categories"})  # what the catalogue says of an item in words
ITEM_KINDS = ("id", "category", "categories", "text", "number", "vector")


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all sections share: frozen, keyword-only, strict."""


class DataSettings(Section, frozen=True):
    """Where the tables are. Each is a file, a folder or a glob of Parquet, CSV or Arrow IPC files."""

    events: str
    items: str | None = None  # None: the corpus is every item of the log, known by its id alone
    users: str | None = None
    unknown_items: Literal["leave_out", "error"] = "leave_out"  # events whose item is not in the items table


class ColumnSettings(Section, frozen=True):
    """Which column plays which role. Roles that are not named are absent."""

    item: str
    user: str | None = None
    time: str | None = None
    weight: str | None = None
    seed: str | None = None  # the item being looked at; derived from the user's earlier events where absent
    history: str | None = None  # a list column; derived likewise, or, without times, what else the same user (else seed) chose
    item_id: str | None = None  # the id column of the items table, where it is called otherwise than `item`
    user_id: str | None = None  # the id column of the users table, where it is called otherwise than `user`
    ties: Literal["hidden", "in_order"] = "hidden"  # may events of one instant see those above them in the file?


class FeatureSettings(Section, frozen=True):
    """One feature: its kind, and how its column becomes an array. `dim` defaults to `model.embedding_dim`."""

    kind: FeatureKind
    column: str | None = None
    dim: int | None = None
    buckets: int | None = None  # text: hash buckets; number: quantile buckets beside the standardised value
    unknown_buckets: int = 1  # learned vectors shared by the values that training did not see
    min_count: int = 1  # values seen fewer times are unknown
    last: int = 50  # items: how much of the history, newest first
    max_tokens: int = 128  # text: how many distinct tokens of one value count, those of most weight first
    character_ngrams: tuple[int, int] = (3, 4)  # text: lengths from..to, inside words; [0, 0] = words alone


class FeatureTable(Section, frozen=True):
    """The features of one side, by name. Empty: proposed from the column types and printed."""

    features: dict[str, str | FeatureSettings] = {}


class ModelSettings(Section, frozen=True):
    """The two towers."""

    embedding_dim: int = 64
    hidden: tuple[int, ...] = (512, 128)  # ReLU between, none on top; the last is the dimension of the vectors
    temperature: float | None = None  # absent: .1, or .25 for a small log (for_log), which wants a softer softmax
    learn_temperature: bool = False
    temperature_bounds: tuple[float, float] = (0.02, 1.0)
    linear_path: bool = True  # add a linear map of the inputs to the towers' outputs
    history_pooling: Literal["recency", "mean", "attention"] = "recency"  # weights by place, equal, or by what is looked at
    item_tower: Literal["content", "table"] = "content"  # table: one learned vector an id, no content (the paper's baseline)
    cross_layers: int = 0  # low-rank cross layers (DCN-V2) in front of the hidden ones, in both towers
    cross_rank: int = 32
    item_bias: bool = True  # one more dimension of the item vector, which every query meets with the same value
    popularity: Literal["learned", "recent"] = (
        "learned"  # the bias; recent: the log share of late, by calibration.py; absent, with times: recent
    )
    # where the vectors of item ids start: at random, or side by side where the same people chose them; absent: spectral for a small log
    id_start: Literal["random", "spectral"] | None = None
    # width of the codes by which items match what a query shows by their words (features/content_codes.py); 0 = none; absent: 256,
    # where the catalogue says anything, queries show items and the log is not large (for_log)
    match_dim: int | None = None
    id_dropout: float = 0.1  # share of items per batch that show an unknown id instead of their own
    singleton_id_dropout: float = 0.5  # the same share for a positive that the window chose once: without this choice it would be new
    history_dropout: float | None = None  # share of history items hidden in training; absent: .3, or 0 for a small log (for_log)


class NegativeSettings(Section, frozen=True):
    """What the softmax of a row sees beside its positive. The default: B-1 other positives, and B' uniform draws from the items that
    were chosen, or for a small log from all."""

    kind: Literal["mixed", "sampled", "full"] = "mixed"  # sampled: no in-batch negatives; full: the whole corpus
    batch_size: int = 1024  # B
    index_batch_size: int = 1024  # B'; for `sampled`, how many distinct items on average
    # chosen: items that the window chose. Absent: those, where held-out choices set the level of the rest, else the corpus (for_log)
    index_from: Literal["corpus", "chosen"] | None = None
    replacement: bool = False  # draw the B' items with replacement?
    proposal: Literal["uniform", "log_uniform", "unigram"] = "uniform"  # of `sampled`
    unchosen_weight: float = 0.1  # of items that nobody chose in the softmax's sum, where they are drawn; below 1 keeps them alive
    queue_batches: int = 0  # positives of so many past batches as further negatives, from remembered vectors
    cached: int = 0  # so many further uniform negatives from remembered vectors of the corpus, at no tower cost
    hardest: int = 0  # keep only so many of the hardest negatives a row; biased
    mined_from: str | None = None  # a store: negatives that its live version ranks high for the query; biased
    mined_per_query: int = 4
    mined_ranks: tuple[int, int] = (101, 500)  # from..to, of that version's list


class LossSettings(Section, frozen=True):
    """How the draws are corrected. docs/estimators.md says what each design converges to."""

    design: LossDesign = "expected_count"
    logq_weight: float = 1.0  # 1 = likely items, 0 = informative ones: a popularity dial
    frequencies: Literal["mixture", "unigram"] = "mixture"  # unigram: the positives' shares alone, which is wrong when B' > 0
    masks: tuple[Mask, ...] | None = None  # absent: `item` where the design masks equal ids


class FrequencySettings(Section, frozen=True):
    """How often each item is drawn as a positive: exact counts of the window, or an estimate from the stream of batches."""

    kind: Literal["exact", "streaming"] = "exact"
    rate: float = 0.01  # of the moving averages
    buckets: int | None = None  # in all; absent: five times the corpus
    hashes: int = 1
    warm_start: bool = True
    stale_after: float = 6.0  # mean gaps without a hit


class TrainSettings(Section, frozen=True):
    """The loop."""

    epochs: int | None = None  # at most; absent: as many passes as make 2,000 steps, 10 at least; early stopping may end sooner
    learning_rate: float = 0.1
    table_learning_rate: float | None = None  # absent: the same
    table_weight_decay: float = 0.0
    adagrad_start: float = 1e-4  # start value of the squared-gradient sums
    both_ways_within: float | None = None  # seconds between choices that are learned in reverse too; absent: 1,800 for a small log, else 0
    validation_fraction: float = 0.02  # of the examples (but 200, or a tenth): the latest, or random ones where there is no time
    validation_at_most: int = 2048
    calibrate: bool = True  # fit a few numbers to the held-out examples at the end (calibration.py)
    patience: int | None = None  # epochs without a better validation loss; absent: as many as make 120 steps, 2 at least
    checkpoint_steps: int = 200
    log_steps: int = 20
    seed: int = 0
    threads: int | None = None  # absent: what torch chooses
    matmul: Literal["auto", "float32", "bfloat16"] = "auto"
    passes: Literal["auto", "eager", "compiled"] = "auto"  # over memory: in C where there is a compiler, or eager


class EvaluateSettings(Section, frozen=True):
    """How the model is judged."""

    protocol: Literal["rolling", "holdout", "leave_last", "release"] = "rolling"  # absent, and the log has no time: holdout
    train_days: int = 30
    test_days: int = 1
    shifts: int = 7
    days: DayCount = "calendar"  # rolling: what the three above count; active: only days that have events (shops close)
    last_day: date | None = None  # rolling: the last day tested; absent: the last day of the log
    holdout: HoldoutUnit = "rows"  # what is drawn at random; users, items: all their events, so that they are cold
    holdout_fraction: float = 0.1
    next_events: str | None = None  # release: the next snapshot of [data] events, of which the new pairs are tested
    next_items: str | None = None  # release: the next snapshot of [data] items, out of which is retrieved
    ks: tuple[int, ...] = (10, 50, 100)
    baselines: tuple[str, ...] = ("popularity", "co-occurrence")  # names of baselines/fit.py; ["all"] = every one
    # may a list hold items that the query knows, or must it leave out the seed, or history and seed? Absent: as the log does (repeats.py)
    seen_items: Literal["rank", "exclude_seed", "exclude"] | None = None
    repeats: Literal["keep", "drop", "apart"] | None = None  # choices of such items; absent: keep, or drop where they are excluded
    bootstrap: int = 1000
    seed: int = 0


class IndexSettings(Section, frozen=True):
    """How item vectors are searched.

    auto chooses when publishing: exact for what is compared in no time, else scann, faiss or int8, whichever is installed. Efforts that
    are not set are tuned to find target_recall of the best target_k items of held-out queries.
    """

    kind: Literal["auto", "exact", "int8", "scann", "faiss"] = "auto"
    target_recall: float = 0.95
    target_k: int = 100
    leaves: int | None = None  # partitions; not set: from the size of the corpus
    searched: int | None = None  # partitions looked into; not set: tuned
    rescored: int | None = None  # items compared by their own vectors; not set: tuned
    build_threads: int | None = None  # not set: all processors that may be used
    seed: int = 0


class Config(Section, frozen=True):
    """All settings of a project."""

    data: DataSettings
    columns: ColumnSettings
    item: FeatureTable = FeatureTable()
    query: FeatureTable = FeatureTable()
    model: ModelSettings = ModelSettings()
    negatives: NegativeSettings = NegativeSettings()
    loss: LossSettings = LossSettings()
    frequency: FrequencySettings = FrequencySettings()
    train: TrainSettings = TrainSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    index: IndexSettings = IndexSettings()


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
    _refuse_contradictions(config, where)
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
        model = msgspec.structs.replace(model, match_dim=_MATCH_DIM if matches and _is_calibrated(config, examples) else 0)
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


def feature_settings(table: FeatureTable) -> dict[str, FeatureSettings]:
    """The features by name, with a bare kind (`"id"`) spelled out."""
    spelled = {}
    for name, value in table.features.items():
        if isinstance(value, str):
            kinds = typing.get_args(FeatureKind)
            if value not in kinds:
                raise ConfigError(f"feature {name!r}: unknown kind {value!r}{_nearest(value, kinds)}; kinds are {', '.join(kinds)}")
            value = FeatureSettings(kind=typing.cast(FeatureKind, value))
        spelled[name] = value
    return spelled


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
            raise ConfigError(f"{where}: unknown key {path}{key}{_nearest(key, fields)}; known here: {', '.join(fields)}")
        _refuse_unknown_keys(value, fields[key], where, f"{path}{key}.")


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _nearest(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.0)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _refuse_contradictions(config: Config, where: str) -> None:
    model, negatives, train, evaluate = config.model, config.negatives, config.train, config.evaluate
    columns, loss, frequency, index = config.columns, config.loss, config.frequency, config.index
    kinds = {settings.kind for settings in feature_settings(config.item).values()}
    rules: list[tuple[bool, str]] = [
        (model.temperature is None or model.temperature > 0, f"model.temperature must be above 0: got {model.temperature}"),
        (
            0 < model.temperature_bounds[0] <= (model.temperature or model.temperature_bounds[0]) <= model.temperature_bounds[1],
            f"model.temperature must lie within model.temperature_bounds: got {model.temperature} for {list(model.temperature_bounds)}",
        ),
        (
            min((*model.hidden, 1)) >= 1 <= len(model.hidden),
            f"model.hidden needs one or more positive widths: got {list(model.hidden)}",
        ),
        (model.embedding_dim > 0, f"model.embedding_dim must be positive: got {model.embedding_dim}"),
        (0 <= model.id_dropout < 1, f"model.id_dropout is a share in [0, 1): got {model.id_dropout}"),
        (0 <= model.singleton_id_dropout < 1, f"model.singleton_id_dropout is a share in [0, 1): got {model.singleton_id_dropout}"),
        (0 <= (model.history_dropout or 0) < 1, f"model.history_dropout is a share in [0, 1): got {model.history_dropout}"),
        (
            (model.match_dim or 0) >= 0 and model.match_dim != 1,
            f"model.match_dim must be 2 or more, half of it for common words and half for rare ones, or 0: got {model.match_dim}",
        ),
        (
            not model.match_dim or not kinds or {"id"} < kinds & {"id", *CONTENT_KINDS},  # none: they are proposed, and say enough
            "model.match_dim matches items by words, and tells by id what that counts: name an item feature of kind id and one of kind "
            "text, category or categories, or set it to 0",
        ),
        (
            not model.match_dim or (model.item_bias and train.calibrate and train.validation_fraction > 0),
            "model.match_dim needs choices held out that say what matches count: keep model.item_bias, train.calibrate and "
            "train.validation_fraction above 0, or set it to 0",
        ),
        (negatives.batch_size >= 1, f"negatives.batch_size must be at least 1: got {negatives.batch_size}"),
        (negatives.index_batch_size >= 0, f"negatives.index_batch_size must not be negative: got {negatives.index_batch_size}"),
        (
            negatives.batch_size + negatives.index_batch_size >= 2,
            "a softmax needs a negative: set negatives.batch_size to 2 or more, or negatives.index_batch_size to 1 or more",
        ),
        (0 < negatives.unchosen_weight <= 1, f"negatives.unchosen_weight is a weight in (0, 1]: got {negatives.unchosen_weight}"),
        (0 <= loss.logq_weight <= 1, f"loss.logq_weight must lie in [0, 1]: got {loss.logq_weight}"),
        (
            not train.both_ways_within or (columns.user is not None and columns.time is not None),
            "train.both_ways_within reverses what users chose one after the other: name [columns] user and time, or set it to 0",
        ),
        (
            not train.both_ways_within or columns.seed is columns.history is None,
            "train.both_ways_within reverses histories that are derived from the log: got [columns] seed or history; set it to 0",
        ),
        ((train.both_ways_within or 0) >= 0, f"train.both_ways_within must not be negative: got {train.both_ways_within}"),
        (0 < frequency.rate < 1, f"frequency.rate must lie in (0, 1): got {frequency.rate}"),
        (
            min(negatives.queue_batches, negatives.cached, negatives.hardest) >= 0,
            "negatives.queue_batches, cached and hardest count up from 0",
        ),
        (
            1 <= negatives.mined_ranks[0] <= negatives.mined_ranks[1] and negatives.mined_per_query >= 1,
            f"negatives.mined_ranks must rise from 1, mined_per_query must be at least 1: got {list(negatives.mined_ranks)}",
        ),
        (model.cross_layers >= 0 and model.cross_rank >= 1, "model.cross_layers counts up from 0, cross_rank from 1"),
        (
            not (loss.design == "all_corrected" and loss.masks is not None and "item" in loss.masks),
            'loss.masks must not name "item" under design "all_corrected": its positive is corrected on a set that keeps duplicates, so '
            "an accidental hit is a second, rightly weighted copy of the positive; without it the loss tends to the softmax over the "
            'negatives alone, and more negatives do not cure it (docs/estimators.md). Take the mask out, or use design "expected_count"',
        ),
        (
            not (loss.design != "all_corrected" and loss.masks is not None and "item" not in loss.masks),
            f'loss.masks must name "item" under design "{loss.design}": its positive stands apart, an accidental hit would count twice',
        ),
        (
            not (loss.frequencies == "unigram" and negatives.kind == "mixed" and (negatives.index_batch_size > 0 or negatives.cached > 0)),
            'loss.frequencies = "unigram" is wrong when uniform items are drawn (negatives.index_batch_size > 0): an item comes from '
            "either stream, so its expected count is (B-1) q + B'/M; a rare one would be corrected by a count near 0 that it does not "
            'have. Use "mixture", or set negatives.index_batch_size = 0',
        ),
        (
            negatives.kind == "mixed" or (negatives.queue_batches == negatives.cached == 0 and negatives.mined_from is None),
            f'negatives.kind = "{negatives.kind}" has no further streams: set queue_batches and cached to 0 and take mined_from out',
        ),
        (
            negatives.mined_from is None or (negatives.index_batch_size > 0 and negatives.index_from != "chosen"),
            "negatives.mined_from may bring items that nobody chose, whose expected count needs uniform draws from the whole corpus: set "
            'negatives.index_batch_size to 1 or more, and index_from = "corpus"',
        ),
        (
            negatives.kind != "sampled" or negatives.index_batch_size >= 1,
            'negatives.kind = "sampled" needs draws: set negatives.index_batch_size to 1 or more',
        ),
        (
            negatives.kind != "full" or loss.design == "expected_count",
            f'negatives.kind = "full" has every item once, the positive too: set loss.design = "expected_count" (got "{loss.design}")',
        ),
        (
            negatives.kind != "sampled" or loss.design == "inclusion",
            'negatives.kind = "sampled" draws distinct items: set loss.design = "inclusion"',
        ),
        (
            loss.design != "inclusion" or (negatives.queue_batches == negatives.cached == 0 and negatives.mined_from is None),
            'loss.design = "inclusion" is for the batch and the index draws: set queue_batches and cached to 0, take mined_from out',
        ),
        (train.adagrad_start > 0, f"train.adagrad_start must be above 0, or the first step divides by zero: got {train.adagrad_start}"),
        (min(train.checkpoint_steps, train.log_steps) >= 1, "train.checkpoint_steps and log_steps must be at least 1"),
        (train.patience is None or train.patience >= 1, f"train.patience must be at least 1 epoch: got {train.patience}"),
        (train.epochs is None or train.epochs >= 1, f"train.epochs must be at least 1: got {train.epochs}"),
        (train.seed >= 0 and evaluate.seed >= 0, f"seeds must not be negative: got {train.seed} and {evaluate.seed}"),
        (train.threads is None or train.threads >= 1, f"train.threads must be at least 1: got {train.threads}"),
        (train.validation_at_most >= 1, f"train.validation_at_most must be at least 1: got {train.validation_at_most}"),
        (
            (train.table_learning_rate or 0) >= 0 and train.table_weight_decay >= 0,
            "train.table_learning_rate and table_weight_decay must not be negative",
        ),
        (evaluate.bootstrap >= 1, f"evaluate.bootstrap must be at least 1 resample: got {evaluate.bootstrap}"),
        (train.learning_rate > 0, f"train.learning_rate must be above 0: got {train.learning_rate}"),
        (0 <= train.validation_fraction < 1, f"train.validation_fraction is a share in [0, 1): got {train.validation_fraction}"),
        (0 < evaluate.holdout_fraction < 1, f"evaluate.holdout_fraction is a share in (0, 1): got {evaluate.holdout_fraction}"),
        (min((*evaluate.ks, 1)) >= 1 and len(evaluate.ks) > 0, f"evaluate.ks needs one or more positive cut-offs: got {list(evaluate.ks)}"),
        (
            evaluate.protocol in ("holdout", "release") or columns.time is not None,
            f'evaluate.protocol = "{evaluate.protocol}" needs times: name [columns] time, or set protocol = "holdout"',
        ),
        (
            evaluate.protocol != "release" or evaluate.next_events is not None,
            'evaluate.protocol = "release" tests what the next snapshot added: name evaluate.next_events',
        ),
        (
            evaluate.protocol != "release" or (evaluate.next_items is None) == (config.data.items is None),
            'evaluate.protocol = "release" retrieves out of the next snapshot of the corpus: name evaluate.next_items where [data] items '
            "is named, and only there",
        ),
        (
            evaluate.seen_items != "exclude" or evaluate.repeats in (None, "drop"),
            f'evaluate.seen_items = "exclude" leaves no list that could hold a repeat: got repeats = "{evaluate.repeats}"; set "drop" (or '
            'leave it out), or seen_items = "exclude_seed" or "rank"',
        ),
        (
            evaluate.protocol != "holdout" or evaluate.holdout != "users" or columns.user is not None,
            'evaluate.holdout = "users" holds out users: name [columns] user',
        ),
        (
            evaluate.protocol != "leave_last" or columns.user is not None,
            'evaluate.protocol = "leave_last" holds out each user\'s last event: name [columns] user',
        ),
        (
            min(evaluate.train_days, evaluate.test_days, evaluate.shifts) >= 1,
            "evaluate.train_days, test_days and shifts must be at least 1",
        ),
        (0 < index.target_recall < 1, f"index.target_recall is a share in (0, 1): got {index.target_recall}; for all of them set kind"),
        (
            min(index.target_k, index.leaves or 1, index.searched or 1, index.rescored or 1, index.build_threads or 1) >= 1
            and 0 not in (index.leaves, index.searched, index.rescored, index.build_threads),
            "index.target_k, leaves, searched, rescored and build_threads must be at least 1",
        ),
        (
            index.kind in ("scann", "faiss") or index.leaves is index.searched is index.rescored is None,
            f'index.leaves, searched and rescored are for kind "scann" or "faiss": got kind = "{index.kind}"; take them out',
        ),
        (
            (index.searched is None) == (index.rescored is None),
            "index.searched and index.rescored are one effort: set both, or neither to have them tuned",
        ),
        (
            index.rescored is None or index.rescored >= index.target_k,
            f"index.rescored must be at least index.target_k: got {index.rescored} for {index.target_k}",
        ),
        (
            model.popularity == "learned" or columns.time is not None,
            'model.popularity = "recent" needs times: name [columns] time, or set "learned"',
        ),
        (0 <= index.seed < 2**31 - 1, f"index.seed must lie in [0, 2^31 - 1): got {index.seed}"),
    ]
    for holds, message in rules:
        if not holds:
            raise ConfigError(f"{where}: {message}")
    for table in (config.item, config.query):
        for name, settings in feature_settings(table).items():
            _refuse_bad_sizes(where, name, settings)
    for name, settings in feature_settings(config.item).items():
        if settings.kind == "id" and settings.min_count > 1:
            raise ConfigError(
                f"{where}: item.features.{name}: an id stands once in the items table, so min_count = {settings.min_count} would make all "
                "unknown; take it out (items that nobody chose have no vector of their own anyway)"
            )
        if settings.kind not in ITEM_KINDS:
            raise ConfigError(
                f"{where}: item.features.{name} is of kind {settings.kind!r}, which only queries have; use one of {', '.join(ITEM_KINDS)}"
            )


def _refuse_bad_sizes(where: str, name: str, settings: FeatureSettings) -> None:
    for size in ("dim", "buckets", "unknown_buckets", "min_count", "last", "max_tokens"):
        value = getattr(settings, size)
        if value is not None and value < 1:
            raise ConfigError(f"{where}: feature {name!r}: {size} must be at least 1: got {value}")
    shortest, longest = settings.character_ngrams
    if (shortest, longest) != (0, 0) and not 1 <= shortest <= longest:
        raise ConfigError(f"{where}: feature {name!r}: character_ngrams must be [shortest, longest] or [0, 0]: got {[shortest, longest]}")


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(part) for key, part in value.items() if part is not None}
    if isinstance(value, (list, tuple)):
        return [_without_none(part) for part in value]
    return value
