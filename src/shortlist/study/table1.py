"""The paper's Table 1: an MLP with sampled softmax, batch negatives and mixed negatives, each with an effective sample of 2048.

Features and the loop are the project's own for all, hidden layers the paper's, and items do not match by words: the table is about
negatives. `MNS` is otherwise the default (docs/decisions.md): uniform negatives from chosen items, and held-out choices that set the
level of the others over the whole corpus. The MLP and batch negatives are as published, without that; the last two lines tell it from
the draws: MNS as the paper has it, and batch negatives that are calibrated as the default is.
"""

from __future__ import annotations

from typing import Any

from shortlist.study.paper import BATCH, MLP, MLP_WIDTHS, MNS, TABLE1, TOWERS, ratios
from shortlist.study.tables import Results
from shortlist.study.variants import Study

EFFECTIVE_SAMPLE = 2048
PUBLISHED = "two-tower, MNS as published"
CALIBRATED_BATCH = "two-tower, batch negatives, calibrated"


def table1() -> Study:
    """The variants. The positive of a row is one of its batch: "B = 2048" means 2047 others, as in the paper."""
    towers = {"hidden": list(TOWERS), "match_dim": 0}
    half = EFFECTIVE_SAMPLE // 2
    mixed = {"batch_size": half, "index_batch_size": EFFECTIVE_SAMPLE - half}
    batch = {"batch_size": EFFECTIVE_SAMPLE, "index_batch_size": 0}
    as_published = {"train": {"calibrate": False}}
    return Study(
        "table1",
        {
            MLP: {
                "model": {"item_tower": "table", "hidden": list(MLP_WIDTHS), "singleton_id_dropout": 0.0},
                "negatives": {
                    "kind": "sampled",
                    "batch_size": EFFECTIVE_SAMPLE,
                    "index_batch_size": EFFECTIVE_SAMPLE,
                    "proposal": "log_uniform",  # the paper names none
                },
                "loss": {"design": "inclusion"},
                **as_published,
            },
            BATCH: {"model": towers, "negatives": batch, **as_published},
            MNS: {"model": towers, "negatives": mixed},
            PUBLISHED: {
                "model": {**towers, "singleton_id_dropout": 0.0},
                "negatives": {**mixed, "index_from": "corpus", "unchosen_weight": 1.0},
                **as_published,
            },
            CALIBRATED_BATCH: {"model": towers, "negatives": batch},
        },
        reference=MNS,
    )


def beside_the_paper(results: Results) -> dict[str, Any]:
    """The ratios to the MLP, the paper's and ours."""
    return ratios(TABLE1, results, MLP)
