"""The named variants: what each changes in a project's own settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from shortlist.config import config_from_tree, config_tree
from shortlist.sections import Config

Changes = Mapping[str, Mapping[str, Any]]  # section -> key -> value
LARGEST_FULL_SOFTMAX = 20_000  # items; above, the full softmax's logits do not fit


@dataclass(frozen=True)
class Study:
    """Variants to be compared.

    variants   by name, in the order of the table
    reference  the variant that the others are subtracted from
    left_out   {variant: why it is not trained}
    """

    name: str
    variants: Mapping[str, Changes]
    reference: str
    left_out: Mapping[str, str] = field(default_factory=dict)


_DESIGNS: dict[str, Changes] = {
    "expected_count": {},
    "all_corrected": {"loss": {"design": "all_corrected"}},
    "inclusion": {"loss": {"design": "inclusion"}},
    "paper_literal": {"loss": {"design": "paper_literal"}},
    "uncorrected": {"loss": {"design": "uncorrected"}},
    "in-batch alone (B' = 0)": {"negatives": {"index_batch_size": 0}},
    "sampled-softmax MLP, uniform": {
        "model": {"item_tower": "table", "singleton_id_dropout": 0.0},
        "negatives": {"kind": "sampled", "index_batch_size": 2048, "proposal": "uniform"},
        "loss": {"design": "inclusion"},
    },
    "sampled-softmax MLP, log-uniform": {
        "model": {"item_tower": "table", "singleton_id_dropout": 0.0},
        "negatives": {"kind": "sampled", "index_batch_size": 2048, "proposal": "log_uniform"},
        "loss": {"design": "inclusion"},
    },
    "full softmax": {"negatives": {"kind": "full"}},
}

COLD_DEFAULT = "default: index draws from chosen items, calibrated"
_CORPUS = {"index_from": "corpus"}
_NOT_HIDDEN = {"singleton_id_dropout": 0.0}
_RAW: Changes = {"train": {"calibrate": False}}
_COLD: dict[str, Changes] = {
    "plain MNS (weight 1, none hidden)": {"model": _NOT_HIDDEN, "negatives": {**_CORPUS, "unchosen_weight": 1.0}, **_RAW},
    "in-batch alone (B' = 0)": {"negatives": {"index_batch_size": 0}, **_RAW},
    "in-batch alone, calibrated": {"negatives": {"index_batch_size": 0}},
    "index draws from chosen items": {"negatives": {"index_from": "chosen"}, **_RAW},
    COLD_DEFAULT: {},
    "default, none hidden": {"model": _NOT_HIDDEN},
    "weight .1": {"negatives": _CORPUS, **_RAW},
    "weight .1, calibrated": {"negatives": _CORPUS},
    "weight .1, none hidden": {"model": _NOT_HIDDEN, "negatives": _CORPUS, **_RAW},
    "weight .3": {"negatives": {**_CORPUS, "unchosen_weight": 0.3}, **_RAW},
    "weight .01": {"negatives": {**_CORPUS, "unchosen_weight": 0.01}, **_RAW},
    "weight .001, none hidden": {"model": _NOT_HIDDEN, "negatives": {**_CORPUS, "unchosen_weight": 0.001}, **_RAW},
    "weight 1, logq_weight .5": {"negatives": {**_CORPUS, "unchosen_weight": 1.0}, "loss": {"logq_weight": 0.5}, **_RAW},
    "no item bias": {"model": {"item_bias": False}, "negatives": _CORPUS, **_RAW},
}
COLD: dict[str, Changes] = {  # what negatives and calibration do, told from what words in common do
    **{variant: {**changes, "model": {"match_dim": 0, **changes.get("model", {})}} for variant, changes in _COLD.items()},
    "default, and words in common": {},
}
DESIGNS: dict[str, Changes] = {  # the bias is learned and nothing is calibrated: either would put back what a design left out
    variant: {**changes, "model": {"popularity": "learned", **changes.get("model", {})}, **_RAW} for variant, changes in _DESIGNS.items()
}
PAPER_TOWERS: Changes = {  # Yang et al., section 4.2: an MLP on each side, a bag of the history, no bias
    "model": {"linear_path": False, "item_bias": False, "history_pooling": "mean", "id_dropout": 0.0, "singleton_id_dropout": 0.0}
}
_TOWERS: dict[str, Changes] = {
    "the paper's towers": PAPER_TOWERS,
    "default": {},
    "no linear path": {"model": {"linear_path": False}},
    "no item bias": {"model": {"item_bias": False}},
    "no id dropout": {"model": {"id_dropout": 0.0, "singleton_id_dropout": 0.0}},
    "history by mean": {"model": {"history_pooling": "mean"}},
    "history by attention": {"model": {"history_pooling": "attention"}},
    "two cross layers": {"model": {"cross_layers": 2}},
}
# without a bias nothing is calibrated, so nothing is in any of them, and all meet the same negatives: towers alone are compared
TOWERS: dict[str, Changes] = {variant: {**changes, "negatives": _CORPUS, **_RAW} for variant, changes in _TOWERS.items()}
_NAMED = {
    "designs": (DESIGNS, "expected_count"),
    "cold": (COLD, COLD_DEFAULT),
    "towers": (TOWERS, "default"),
}
NAMED = tuple(_NAMED)


def named_study(name: str, corpus_size: int) -> Study:
    """The study of that name, one of NAMED; the full softmax is left out where the corpus is too large for it."""
    variants, reference = _NAMED[name]
    full = [variant for variant, changes in variants.items() if changes.get("negatives", {}).get("kind") == "full"]
    too_large = full if corpus_size > LARGEST_FULL_SOFTMAX else []
    left_out = {variant: f"{corpus_size:,} items: its logits do not fit" for variant in too_large}
    return Study(name, {variant: changes for variant, changes in variants.items() if variant not in left_out}, reference, left_out)


def changed(config: Config, changes: Changes) -> Config:
    """The config with `changes`."""
    tree = config_tree(config)
    for section, values in changes.items():
        tree[section] = {**tree.get(section, {}), **values}
    return config_from_tree(tree)
