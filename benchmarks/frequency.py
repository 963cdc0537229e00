"""How well does the streaming estimator know what is drawn? Drift, collisions, the two ways to count, merged workers.

    python benchmarks/frequency.py           # tables; about a minute on one core
    python benchmarks/frequency.py --json    # one JSON line on stdout

Drift: the set-up of Yi et al. (RecSys'19), section 6.1, whose paper prints curves only. Items 0..999; 128 distinct ones a step, by
Gumbel top-128 of log q with q ~ i^2, after step 10,000 q ~ (999-i)^2. Error = 1/(2*128) sum_i |p_i - 128 q_i|. The reference
numbers come from another program whose buckets are random too, of one seed: where items collide, the luck of that seed is in them.
So a row with collisions is run with several hash seeds: the mean over them is what the setting gives, and the reference is met where
it is one of the draws, that is where some seed comes within .01 of it in every column. The target is itself approximate (an item
drawn without replacement has p < 128 q), so the floor is not 0.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from record import run_record

from shortlist.streaming import StreamingFrequency, StreamingSettings

ITEMS, BATCH, SWITCH = 1000, 128, 10_000
HASH_SEEDS = 20  # of a row with one hash and collisions
FEWER_HASH_SEEDS = 6  # of a row with several hashes: the largest of them evens luck out
COLUMNS = {"200": 200, "1k": 1000, "5k": 5000, "10k": SWITCH, "switch +1k": 11_000, "+2k": 12_000, "+5k": 15_000, "+10k": 20_000}
PLENTY = 1 << 20  # buckets in which the items do not meet, for a seed that is looked for
PAPER = StreamingSettings(
    semantics="inclusion",
    start="paper",
    start_gap=100.0,
    warm_start=False,
    stale_after=None,
    count_silence=False,
    rate=0.01,
    buckets=5000,
    hashes=1,
)
OURS = StreamingSettings(semantics="inclusion", buckets=PLENTY, hashes=1)


@dataclass(frozen=True)
class Row:
    """One setting and its reference errors, a number a column; none where there is no reference."""

    name: str
    settings: StreamingSettings
    reference: tuple[float, ...] = ()


def rows() -> list[Row]:
    free = without_collisions(replace(PAPER, buckets=PLENTY))
    warm = replace(free, warm_start=True)
    guarded = replace(PAPER, hashes=4, warm_start=True, stale_after=6.0)
    return [
        Row("5000 buckets, m=1, a=.1", replace(PAPER, rate=0.1), (0.186, 0.164, 0.158, 0.161, 0.226, 0.209, 0.198, 0.184)),
        Row("5000 buckets, m=1, a=.02", replace(PAPER, rate=0.02), (0.434, 0.172, 0.118, 0.118, 0.235, 0.182, 0.158, 0.145)),
        Row("5000 buckets, m=1, a=.01", PAPER, (0.456, 0.321, 0.110, 0.110, 0.405, 0.215, 0.158, 0.140)),
        Row("5000 buckets, m=1, a=.005", replace(PAPER, rate=0.005), (0.464, 0.420, 0.138, 0.106, 0.538, 0.398, 0.176, 0.144)),
        *_hashed(5000, 2, (0.457, 0.322, 0.057, 0.058, 0.373, 0.160, 0.103, 0.084)),
        *_hashed(5000, 4, (0.457, 0.325, 0.050, 0.050, 0.347, 0.127, 0.073, 0.057)),
        *_hashed(20_000, 1, (0.457, 0.327, 0.054, 0.052, 0.393, 0.168, 0.107, 0.085)),
        *_hashed(20_000, 2, (0.458, 0.331, 0.037, 0.036, 0.386, 0.151, 0.089, 0.067)),
        *_hashed(20_000, 4, (0.458, 0.331, 0.036, 0.035, 0.374, 0.137, 0.075, 0.055)),
        *_hashed(1500, 1, (0.452, 0.329, 0.305, 0.309, 0.487, 0.386, 0.341, 0.330)),
        *_hashed(1500, 2, (0.453, 0.300, 0.238, 0.239, 0.422, 0.309, 0.269, 0.257)),
        *_hashed(1500, 4, (0.451, 0.284, 0.317, 0.319, 0.437, 0.355, 0.327, 0.319)),
        Row("no collisions, a=.01", free, (0.458, 0.331, 0.036, 0.035, 0.387, 0.149, 0.087, 0.064)),
        Row("  + warm start", warm, (0.075, 0.041, 0.035, 0.035, 0.391, 0.151, 0.087, 0.064)),
        Row("  + guard", replace(warm, stale_after=6.0), (0.075, 0.039, 0.035, 0.035, 0.293, 0.089, 0.046, 0.038)),
        Row("5000 buckets, m=4, warm, guard", guarded, (0.087, 0.053, 0.049, 0.050, 0.289, 0.098, 0.057, 0.049)),
        Row("no collisions, our defaults", without_collisions(OURS)),
        Row("5000 buckets, m=4, our defaults", replace(OURS, buckets=5000, hashes=4)),
    ]


def _hashed(buckets: int, hashes: int, reference: tuple[float, ...]) -> list[Row]:
    return [Row(f"{buckets} buckets, m={hashes}, a=.01", replace(PAPER, buckets=buckets, hashes=hashes), reference)]


def without_collisions(settings: StreamingSettings, items: int = ITEMS) -> StreamingSettings:
    """The settings with the first seed under which no two items share a bucket."""
    for seed in range(100):
        estimator = StreamingFrequency(replace(settings, seed=seed))
        estimator.update(np.arange(items))
        if estimator.state()["hits"].sum() == items:  # a bucket counts one hit a step, however many items fall into it
            return estimator.settings
    raise RuntimeError(f"{settings.buckets} buckets must hold {items} items apart: got collisions under 100 seeds; take more buckets")


def drifting_stream(rng: np.random.Generator) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """A batch of distinct items and the shares q it was drawn by, step after step."""
    item = np.arange(ITEMS, dtype=np.float64)
    for weight in (item**2, (ITEMS - 1 - item) ** 2):
        q = weight / weight.sum()
        log_q = np.log(q, out=np.full(ITEMS, -np.inf), where=q > 0)
        for _ in range(SWITCH):
            yield np.argpartition(-(log_q + rng.gumbel(size=ITEMS)), BATCH)[:BATCH], q


def drift_errors(table: list[Row], rng: np.random.Generator) -> list[NDArray[np.float64]]:
    """The errors (hash seeds, columns) of each row, all rows fed by one stream."""
    estimators = [[StreamingFrequency(replace(row.settings, seed=seed)) for seed in hash_seeds(row.settings)] for row in table]
    errors: list[list[list[float]]] = [[] for _ in table]
    for step, (batch, q) in enumerate(drifting_stream(rng), start=1):
        for estimator in itertools.chain.from_iterable(estimators):
            estimator.update(batch)
        if step in COLUMNS.values():
            for seeded, found in zip(estimators, errors, strict=True):
                found.append([error_of(estimator.estimate(np.arange(ITEMS)), q) for estimator in seeded])
    return [np.array(found).T for found in errors]


def hash_seeds(settings: StreamingSettings) -> range:
    """Several where items meet by the luck of the hashes; else the one that the settings name."""
    if settings.buckets >= PLENTY:
        return range(settings.seed, settings.seed + 1)
    return range(HASH_SEEDS if settings.hashes == 1 else FEWER_HASH_SEEDS)


def drift_row(row: Row, errors: NDArray[np.float64]) -> dict[str, Any]:
    """What is printed of a row: the mean over hash seeds and their spread; with a reference, how far the mean and the nearest seed are."""
    mean, spread = errors.mean(axis=0), float(np.ptp(errors, axis=0).max())
    shown: dict[str, Any] = {"setting": row.name, "errors": dict(zip(COLUMNS, mean.tolist(), strict=True)), "hash_seeds": len(errors)}
    if row.reference:
        differences = np.abs(errors - row.reference).max(axis=1)  # (hash seeds,) the largest over the columns
        shown["reference"] = dict(zip(COLUMNS, row.reference, strict=True))
        shown["difference_of_mean"] = float(np.abs(mean - row.reference).max())
        shown["difference_of_nearest_seed"] = float(differences.min())
        shown["seeds_within_.01"] = int((differences <= 0.01).sum())
        shown["largest_spread_of_seeds"] = spread
    return shown


def error_of(estimate: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    return float(np.abs(estimate - BATCH * q).sum() / (2 * BATCH))


class SequentialCount:
    """Algorithm 2 run over every positive of a batch, as if each were a step of gap 0 after the first; dense rows, no hashing."""

    def __init__(self, items: int, rate: float, start_gap: float) -> None:
        self.rate, self.step = rate, 0
        self.last_step = np.zeros(items)
        self.mean_gap = np.full(items, start_gap)

    def update(self, batch: NDArray[np.int64]) -> None:
        self.step += 1
        touched, times = np.unique(batch, return_counts=True)
        gap = self.step - self.last_step[touched]
        once = (1 - self.rate) * self.mean_gap[touched] + self.rate * gap
        self.mean_gap[touched] = (1 - self.rate) ** (times - 1) * once
        self.last_step[touched] = self.step

    def estimate(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.asarray(1 / self.mean_gap[rows])


def zipf(items: int) -> NDArray[np.float64]:
    weight = 1 / np.arange(1, items + 1)
    return np.asarray(weight / weight.sum())


def count_check(rng: np.random.Generator, steps: int = 10_000) -> list[dict[str, Any]]:
    """Both counts on Zipf(1) batches with duplicates, averaged over the second half; the first item comes 17 times a step."""
    q, item = zipf(ITEMS), np.arange(ITEMS)
    settings = replace(without_collisions(replace(PAPER, buckets=PLENTY)), semantics="count")
    forms: dict[str, StreamingFrequency | SequentialCount] = {
        "one update a step, K/B": StreamingFrequency(settings),
        "sequential": SequentialCount(ITEMS, 0.01, 100.0),
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in forms}
    for step in range(1, steps + 1):
        batch = rng.choice(ITEMS, BATCH, p=q)
        for name, form in forms.items():
            form.update(batch)
            if step > steps // 2 and step % 50 == 0:
                estimate = form.estimate(item)
                found[name].append((estimate[0] / (BATCH * q[0]), error_of(estimate, q)))
    reference = {"one update a step, K/B": (0.999, 0.028), "sequential": (1.099, 0.039)}
    return [
        {"form": name, "ratio": ratio, "error": error, "reference_ratio": reference[name][0], "reference_error": reference[name][1]}
        for name, (ratio, error) in ((name, np.mean(pairs, axis=0).tolist()) for name, pairs in found.items())
    ]


def merge_check(rng: np.random.Generator, steps: int = 300, rows_each: int = 8) -> list[dict[str, Any]]:
    """w workers with batches of their own: count in the global batch over the true one, summed over the items of a slice.

    head: a draw or more in a worker's step. tail: less than one draw per worker in the whole stream.
    """
    q, item = zipf(ITEMS), np.arange(ITEMS)
    settings = without_collisions(replace(OURS, semantics="count", buckets=1 << 19))
    hits = rows_each * q  # a worker's, in a step
    slices = {"head": hits >= 1, "middle": (hits < 1) & (hits * steps >= 1), "tail": hits * steps < 1}
    table = []
    for workers in (2, 4, 8):
        whole, parts = StreamingFrequency(settings), [StreamingFrequency(settings) for _ in range(workers)]
        for _ in range(steps):
            batch = rng.choice(ITEMS, workers * rows_each, p=q)
            whole.update(batch)
            for part, own in zip(parts, batch.reshape(workers, rows_each), strict=True):
                part.update(own)
        found = {
            "one worker": whole.estimate(item),
            "merge": workers * parts[0].merge(parts[1:]).estimate(item),
            "sum of estimates": np.sum([part.estimate(item) for part in parts], axis=0),
            "weighted by hits": workers * merged_by_hits(parts).estimate(item),
        }
        for name, is_in in slices.items():
            truth = workers * hits[is_in].sum()
            ratios = {way: float(estimate[is_in].sum() / truth) for way, estimate in found.items()}
            table.append({"workers": workers, "slice": name, "items": int(is_in.sum()), **ratios})
    return table


def merged_by_hits(parts: list[StreamingFrequency]) -> StreamingFrequency:
    """The simpler merge: max of A, hits added, B and K weighted by hits."""
    states = [part.state() for part in parts]
    hits = np.sum([state["hits"] for state in states], axis=0)
    merged = {**states[0], "hits": hits, "last_step": np.max([state["last_step"] for state in states], axis=0)}
    for name in ("mean_gap", "multiplicity"):
        merged[name] = np.sum([state[name] * state["hits"] for state in states], axis=0) / np.maximum(hits, 1)
    return StreamingFrequency.from_state(parts[0].settings, merged)


def measured(seed: int) -> dict[str, Any]:
    """Everything this benchmark knows, ready for JSON."""
    started = time.perf_counter()
    drift_rng, count_rng, merge_rng = np.random.default_rng(seed).spawn(3)
    table = rows()
    drift = [drift_row(row, errors) for row, errors in zip(table, drift_errors(table, drift_rng), strict=True)]
    return {
        "benchmark": "frequency",
        "rows": drift,
        "largest_difference_of_nearest_seed": max(row["difference_of_nearest_seed"] for row in drift if "reference" in row),
        "largest_difference_of_mean": max(row["difference_of_mean"] for row in drift if "reference" in row),
        "count": count_check(count_rng),
        "merge": merge_check(merge_rng),
        "seconds": time.perf_counter() - started,
        "seed": seed,
        **run_record(),
    }


def print_tables(result: dict[str, Any]) -> None:
    print("Drift: mean error at each step, the reference below it; then the largest difference of the mean and of the nearest hash seed")
    print(f"{'':34}" + "".join(f"{name:>11}" for name in COLUMNS) + f"{'mean':>11}{'nearest':>11}{'seeds within .01':>20}")
    for row in result["rows"]:
        print(f"{row['setting']:34}" + "".join(f"{error:11.3f}" for error in row["errors"].values()))
        if "reference" in row:
            differences = f"{row['difference_of_mean']:11.3f}{row['difference_of_nearest_seed']:11.3f}"
            within = f"{row['seeds_within_.01']} of {row['hash_seeds']}"
            print(f"{'':34}" + "".join(f"{error:11.3f}" for error in row["reference"].values()) + differences + f"{within:>20}")
    print("\nCount, Zipf(1), 128 draws with replacement: estimate / truth of the first item (17 a step); error over all (reference)")
    for row in result["count"]:
        print(f"{row['form']:34}{row['ratio']:.3f} ({row['reference_ratio']:.3f})  {row['error']:.3f} ({row['reference_error']:.3f})")
    print("\nMerge: sum of the estimates / sum of the true counts, by slice")
    print(f"{'':34}" + "".join(f"{name:>18}" for name in list(result["merge"][0])[3:]))
    for row in result["merge"]:
        name = f"{row['workers']} workers, {row['slice']} ({row['items']} items)"
        print(f"{name:34}" + "".join(f"{ratio:18.3f}" for ratio in list(row.values())[3:]))
    print(f"\n{result['seconds']:.0f} s, seed {result['seed']}, commit {result['commit'][:10]}, {result['date']}, {result['machine']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog="example: python benchmarks/frequency.py --json")
    parser.add_argument("--json", action="store_true", help="print one JSON line instead of the tables")
    parser.add_argument("--seed", type=int, default=0, help="of the streams")
    arguments = parser.parse_args()
    result = measured(arguments.seed)
    if arguments.json:
        print(json.dumps(result))
    else:
        print_tables(result)


if __name__ == "__main__":
    main()
