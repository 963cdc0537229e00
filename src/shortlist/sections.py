"""The sections of the settings: one frozen class a stage, with the defaults. What must hold between them is in config_rules.py."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterable
from datetime import date
from typing import Literal

import msgspec

from shortlist.errors import ConfigError

LossDesign = Literal["expected_count", "all_corrected", "inclusion", "paper_literal", "uncorrected"]
Mask = Literal["item", "same_query", "known"]
FEWEST_TO_HOLD_OUT = 10  # examples: a tenth of fewer is none
LARGE_LOG = 100_000  # examples; from there on the towers learn what words mean
MATCH_DIM = 512  # of the codes, where the settings name no width
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
    # width of the codes by which items match what a query shows by their words (features/content_codes.py); 0 = none; absent: 512,
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
    rescored: int | None = None  # items named by codes and compared by their own vectors; not set: tuned, and finer codes rule most out
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


def feature_settings(table: FeatureTable) -> dict[str, FeatureSettings]:
    """The features by name, with a bare kind (`"id"`) spelled out."""
    spelled = {}
    for name, value in table.features.items():
        if isinstance(value, str):
            kinds = typing.get_args(FeatureKind)
            if value not in kinds:
                raise ConfigError(f"feature {name!r}: unknown kind {value!r}{nearest_of(value, kinds)}; kinds are {', '.join(kinds)}")
            value = FeatureSettings(kind=typing.cast(FeatureKind, value))
        spelled[name] = value
    return spelled


def nearest_of(word: str, known: Iterable[str]) -> str:
    """A question in brackets that names the known word nearest to this one; nothing where none is known."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.0)
    return f" (did you mean {close[0]!r}?)" if close else ""
