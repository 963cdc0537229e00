"""Tables 1 and 2 of the paper (Yang et al., WWW'20 Companion). Its data are its own, so that only ratios can be compared."""

from __future__ import annotations

from typing import Any

from shortlist.study.tables import Results

MLP, BATCH, MNS = "MLP, sampled softmax", "two-tower, batch negatives", "two-tower, MNS"
TOWERS, MLP_WIDTHS = (512, 128), (1024, 128)  # hidden layers; the last is the length of the vectors

TABLE1 = {
    MLP: {"recall@10": 0.4283, "recall@50": 0.7226, "recall@100": 0.8351},
    BATCH: {"recall@10": 0.3987, "recall@50": 0.6439, "recall@100": 0.7287},
    MNS: {"recall@10": 0.4473, "recall@50": 0.7474, "recall@100": 0.8590},
}
TABLE2 = {  # by B', at B = 1024
    1024: {"recall@10": 0.4473, "recall@50": 0.7474, "recall@100": 0.8590},
    2048: {"recall@10": 0.4501, "recall@50": 0.7480, "recall@100": 0.8577},
    4096: {"recall@10": 0.4549, "recall@50": 0.7576, "recall@100": 0.8684},
    8192: {"recall@10": 0.4780, "recall@50": 0.7877, "recall@100": 0.8939},
    12000: {"recall@10": 0.4589, "recall@50": 0.7567, "recall@100": 0.8635},
    16000: {"recall@10": 0.4443, "recall@50": 0.7447, "recall@100": 0.8575},
}

Rows = dict[str, dict[str, float]]  # variant -> metric -> value


def ratios(paper: Rows, results: Results, base: str) -> dict[str, Any]:
    """By variant and metric: the paper's value over its value for `base`, and ours over ours. Variants that we left out have no "ours"."""
    found: dict[str, Any] = {}
    for variant, metrics in paper.items():
        if variant == base:
            continue
        ours = _means(results, variant), _means(results, base)
        found[f"{variant} / {base}"] = {
            name: {"paper": value / paper[base][name], **_ratio(ours[0].get(name), ours[1].get(name))} for name, value in metrics.items()
        }
    return found


def _means(results: Results, variant: str) -> dict[str, float]:
    if variant not in results.ranks:
        return {}
    return {name: float(sum(results.mean_of_seeds(values)) / len(values)) for name, values in results.metrics(variant).items()}


def _ratio(value: float | None, base: float | None) -> dict[str, float]:
    return {"ours": value / base} if value is not None and base else {}
