"""The paper's Table 1: an MLP with sampled softmax, batch negatives and mixed negatives, each with an effective sample of 2048.

Features and the loop are the project's own for all, hidden layers the paper's: the table is about negatives. The fourth line
is MNS as the paper weighs items that nobody chose; ours weigh less by default (docs/decisions.md).
"""

from __future__ import annotations

from typing import Any

from shortlist.study.paper import BATCH, MLP, MLP_WIDTHS, MNS, TABLE1, TOWERS, ratios
from shortlist.study.tables import Results
from shortlist.study.variants import Study

EFFECTIVE_SAMPLE = 2048
PLAIN = "two-tower, MNS, unchosen weight 1"


def table1() -> Study:
    """The variants. The positive of a row is one of its batch: "B = 2048" means 2047 others, as in the paper."""
    towers = {"hidden": list(TOWERS)}
    half = EFFECTIVE_SAMPLE // 2
    mixed = {"batch_size": half, "index_batch_size": EFFECTIVE_SAMPLE - half}
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
            },
            BATCH: {"model": towers, "negatives": {"batch_size": EFFECTIVE_SAMPLE, "index_batch_size": 0}},
            MNS: {"model": towers, "negatives": mixed},
            PLAIN: {"model": {**towers, "singleton_id_dropout": 0.0}, "negatives": {**mixed, "unchosen_weight": 1.0}},
        },
        reference=MNS,
    )


def beside_the_paper(results: Results) -> dict[str, Any]:
    """The ratios to the MLP, the paper's and ours."""
    return ratios(TABLE1, results, MLP)
