"""The paper's Table 2: more and more uniform negatives B', at fixed B as in the paper, and at fixed B + B'.

At fixed B a row meets more negatives with every step, and a step costs more. At fixed B + B' it meets as many in all: what
changes is where they come from. Then the batch is smaller and a pass has more steps. Hidden layers are the paper's, and so are
draws from the whole corpus with nothing calibrated behind them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shortlist.study.paper import TABLE2, TOWERS, ratios
from shortlist.study.tables import Results, of_model
from shortlist.study.variants import Changes, Study

BATCH_SIZE = 1024
INDEX_BATCH_SIZES = (0, 1024, 2048, 4096, 8192, 12_000, 16_384)  # the paper's last is printed as 16000
SUM = 2048  # the effective sample of Table 1
INDEX_SHARES = (0.0, 0.25, 0.5, 0.75, 0.875)  # of the sum


def sizes(batch_size: int, index_batch_size: int) -> str:
    """The name of the variant."""
    return f"B = {batch_size}, B' = {index_batch_size}"


def pairs_of_sum(total: int) -> list[tuple[int, int]]:
    """(B, B') with B + B' = total."""
    return [(total - round(share * total), round(share * total)) for share in INDEX_SHARES]


def table2(
    corpus_size: int, *, batch_size: int = BATCH_SIZE, index_batch_sizes: Sequence[int] = INDEX_BATCH_SIZES, total: int = SUM
) -> Study:
    """The variants: B' by `index_batch_sizes` at B = `batch_size`, then those of B + B' = `total`; B' = B is the reference.

    A B' larger than the corpus is left out: without replacement there are no more items to draw.
    """
    pairs = [(batch_size, index_batch_size) for index_batch_size in index_batch_sizes] + pairs_of_sum(total)
    left_out = {
        sizes(*pair): f"B' = {pair[1]:,} distinct items cannot be drawn from a corpus of {corpus_size:,}"
        for pair in pairs
        if pair[1] > corpus_size
    }
    variants: dict[str, Changes] = {
        sizes(*pair): {
            "model": {"hidden": list(TOWERS)},
            "train": {"calibrate": False},
            "negatives": {
                "kind": "mixed",
                "index_from": "corpus",
                "replacement": False,
                "batch_size": pair[0],
                "index_batch_size": pair[1],
            },
        }
        for pair in pairs
        if sizes(*pair) not in left_out
    }
    reference = sizes(batch_size, batch_size)
    return Study("table2", variants, reference if reference in variants else next(iter(variants)), left_out)


def rows_at_fixed_batch(results: Results, batch_size: int, index_batch_sizes: Sequence[int]) -> dict[str, Any]:
    """The longest recall by B' at fixed B, in the form that the report draws."""
    return _drawn(results, f"table2, B = {batch_size}", [(batch_size, size) for size in index_batch_sizes])


def rows_at_fixed_sum(results: Results, total: int) -> dict[str, Any]:
    """The same at B + B' = total."""
    return _drawn(results, f"table2, B + B' = {total}", pairs_of_sum(total))


def beside_the_paper(results: Results, batch_size: int) -> dict[str, Any]:
    """The ratios to B' = 1024, the paper's and ours; its B' = 16000 stands beside our 16384."""
    paper = {sizes(batch_size, 16_384 if size == 16_000 else size): metrics for size, metrics in TABLE2.items()}
    return ratios(paper, results, sizes(batch_size, 1024))


def _drawn(results: Results, name: str, pairs: Sequence[tuple[int, int]]) -> dict[str, Any]:
    metric = f"recall@{results.longest}"
    rows = []
    for batch_size, index_batch_size in pairs:
        if sizes(batch_size, index_batch_size) in results.ranks:
            found = of_model(results, sizes(batch_size, index_batch_size))["metrics"][metric]
            rows.append({"index_batch_size": index_batch_size, "batch_size": batch_size, **found})
    splits = [split.split for split in results.outcome.tested]
    return {"study": name, "metric": metric, "split": splits[0] if len(splits) == 1 else f"{splits[0]} to {splits[-1]}", "rows": rows}
