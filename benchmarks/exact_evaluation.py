"""What does exact evaluation cost beside the bare matrix product? Every query against the whole corpus, ranks included.

    OMP_NUM_THREADS=1 python benchmarks/exact_evaluation.py           # a table; about five minutes on one core
    OMP_NUM_THREADS=1 python benchmarks/exact_evaluation.py --json    # one JSON line on stdout

product      queries @ items.T, block by block, into memory that is used again: nobody can be faster and look at every pair. Of
             several blocks, the fastest is taken.
search       the exact index alone: the k best of every query, canonical scores, ties by row
evaluation   evaluate.rank_positives over that index: lists, ranks, coverage, Gini and novelty
The three take turns in every round, so that a busy machine is busy for all. The figure is the median over rounds; the ratio is
that of each round's times, and its median. The aim: evaluation at most twice the product, at 10,000 queries against 1,000,000
items of dimension 128 with k = 101.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from record import run_record

from shortlist.dataset import Examples
from shortlist.evaluate import rank_positives
from shortlist.index.exact import ExactIndex
from shortlist.queries import Queries
from shortlist.sections import EvaluateSettings, IndexSettings

Float32s = NDArray[np.float32]
BLOCKS = [(128, 8192), (128, 32_768), (256, 16_384), (512, 8192)]  # queries, items at a time
KS = (10, 50, 100)  # evaluation asks for one result more


class Searched:
    """Query i of the examples is the i-th of the given vectors: a retriever that costs nothing but its search."""

    name = "exact"

    def __init__(self, index: ExactIndex, queries: Float32s) -> None:
        self.index, self.queries = index, queries

    def retrieve(
        self, queries: Queries, k: int, exclude: Sequence[NDArray[Any]] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """(rows, scores), each (N, k); the query's number stands in its user row."""
        return self.index.search(self.queries[queries.user_row], k, exclude=exclude)


def product_seconds(queries: Float32s, items: Float32s, block: tuple[int, int]) -> float:
    rows_at_once, columns_at_once = block
    memory = np.empty(rows_at_once * columns_at_once, np.float32)
    started = time.perf_counter()
    for column in range(0, len(items), columns_at_once):
        part = items[column : column + columns_at_once].T
        for row in range(0, len(queries), rows_at_once):
            lines = queries[row : row + rows_at_once]
            scores = memory[: len(lines) * part.shape[1]].reshape(len(lines), part.shape[1])
            np.matmul(lines, part, out=scores)
    return time.perf_counter() - started


def fastest_block(queries: Float32s, items: Float32s) -> tuple[int, int]:
    """Of BLOCKS, by a tenth of the queries."""
    few = queries[: max(512, len(queries) // 10)]
    return min(BLOCKS, key=lambda block: product_seconds(few, items, block))


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def examples_of(count: int, size: int, rng: np.random.Generator) -> Examples:
    """Queries without seed or history, each with a random positive."""
    none, start = np.full(count, -1, np.int32), np.zeros(count, np.int64)
    queries = Queries(none, np.arange(count, dtype=np.int32), np.zeros(0, np.int32), start, start)
    positive = rng.integers(0, size, count).astype(np.int32)
    return Examples(queries, positive, np.ones(count, np.float32), start, np.arange(count))


def measured(count: int, size: int, dim: int, rounds: int) -> dict[str, Any]:
    """Everything this benchmark knows, ready for JSON."""
    rng = np.random.default_rng(0)
    items, queries = rng.standard_normal((size, dim), dtype=np.float32), rng.standard_normal((count, dim), dtype=np.float32)
    index, examples = ExactIndex.build(items, IndexSettings()), examples_of(count, size, rng)
    chosen = rng.integers(0, 100, size)
    settings = EvaluateSettings(ks=KS)
    block = fastest_block(queries, items)
    work: dict[str, Callable[[], float]] = {
        "product": lambda: product_seconds(queries, items, block),
        "search": lambda: seconds(lambda: index.search(queries, max(KS) + 1)),
        "evaluation": lambda: seconds(lambda: rank_positives(Searched(index, queries), examples, size, settings, item_counts=chosen)),
    }
    taken: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds):
        for name, run in work.items():
            taken[name].append(run())
    ratios = {name: [own / bare for own, bare in zip(taken[name], taken["product"], strict=True)] for name in work}
    return {
        "benchmark": "exact_evaluation",
        "queries": count,
        "items": size,
        "dim": dim,
        "k": max(KS) + 1,
        "rounds": rounds,
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "product_block": block,
        "seconds": taken,
        "median_seconds": {name: statistics.median(times) for name, times in taken.items()},
        "ratio_to_product": {name: statistics.median(values) for name, values in ratios.items()},
        "product_gflops": 2e-9 * count * size * dim / statistics.median(taken["product"]),
        **run_record(),
    }


def print_table(result: dict[str, Any]) -> None:
    sizes = f"{result['queries']:,} queries, {result['items']:,} items, dimension {result['dim']}"
    print(f"{sizes}, k = {result['k']}, {result['rounds']} rounds")
    print(f"{'':12}{'seconds':>9}{'to the product':>16}   of each round")
    for name, median in result["median_seconds"].items():
        rounds = " ".join(f"{value:.1f}" for value in result["seconds"][name])
        print(f"{name:12}{median:9.1f}{result['ratio_to_product'][name]:16.2f}   {rounds}")
    print(f"product: {result['product_gflops']:.0f} GFLOP/s, blocks of {result['product_block'][0]} by {result['product_block'][1]}")
    print(f"commit {result['commit'][:10]}, {result['date']}, {result['machine']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog="example: python benchmarks/exact_evaluation.py --json")
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print one JSON line instead of the table")
    arguments = parser.parse_args()
    result = measured(arguments.queries, arguments.items, arguments.dim, arguments.rounds)
    if arguments.json:
        print(json.dumps(result))
    else:
        print_table(result)


if __name__ == "__main__":
    main()
