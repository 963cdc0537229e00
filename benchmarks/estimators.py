"""Which loss designs are right? T1 and T2 of docs/estimators.md for every design and for the mistakes of other programs.

    python benchmarks/estimators.py           # tables; about ten seconds on one core
    python benchmarks/estimators.py --json    # one JSON line on stdout

Draws: B-1 positives ~ Multinomial(q) and B' uniform ones, q = Zipf(1). s are logits, P the true shares of choices.
T1, away from the optimum (M = 500, B = B' = 128): the mean softmax mass that is not on the positive, in four cases of positive and
logit; right is the full softmax's. T2, at the optimum s = log P: the norm of the mean gradient; right is 0.
The reference figures come from another program, which drew the positive as well; here it is averaged over exactly, so that fewer
batches have less noise than theirs (.002 .003 .004 .004 at sizes A-D). A figure below both noise floors says 0.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from record import run_record

Floats = NDArray[np.float64]
GROUPS = {"head": [0, 1, 2], "tail": [199, 259, 319, 379, 439, 499]}  # items of rank 1, 2, 3 and 200, 260, ..., counted from 0
CASES = [("head", 2), ("head", 6), ("tail", 2), ("tail", 6)]  # the positive's group, and how far its logit is raised
CHUNK = 500  # batches at a time: what fits the processor's cache


@dataclass(frozen=True)
class Size:
    """M items, B, B', and how many batches are drawn."""

    corpus: int
    batch: int
    uniform: int
    rounds: int


SIZES = {
    "A": Size(300, 64, 64, 20_000),
    "B": Size(300, 256, 256, 10_000),
    "C": Size(300, 1024, 1024, 8000),
    "D": Size(2000, 128, 1024, 3000),
}


@dataclass(frozen=True)
class Counts:
    """Drawn batches, counted by item, and their expectations."""

    q: Floats  # (M,)
    batch: int
    uniform: int
    positives: Floats  # (rounds, M)
    index: Floats  # (rounds, M)

    @property
    def c(self) -> Floats:
        return self.positives + self.index

    @property
    def by_batch(self) -> Floats:
        """(M,) (B-1) q: the expected count among the other positives alone."""
        return (self.batch - 1) * self.q

    @property
    def n(self) -> Floats:
        """(M,) (B-1) q + B'/M."""
        return self.by_batch + self.uniform / len(self.q)

    @property
    def pi(self) -> Floats:
        """(M,) the probability of being drawn at all."""
        missed = (self.batch - 1) * np.log1p(-self.q) + self.uniform * np.log1p(-1 / len(self.q))
        return np.asarray(-np.expm1(missed))

    def part(self, start: int) -> Counts:
        """The batches from `start` on, CHUNK of them."""
        stop = start + CHUNK
        return Counts(self.q, self.batch, self.uniform, self.positives[start:stop], self.index[start:stop])


@dataclass(frozen=True)
class Row:
    """own_y e^s_y + sum_j drawn_j e^s_j, copies of y left out where masked; and the reference: four masses, four norms."""

    name: str
    own: Callable[[Counts], Floats]  # (M,)
    drawn: Callable[[Counts], Floats]  # (rounds, M)
    masked: bool
    masses: tuple[float, float, float, float]
    norms: tuple[float | None, ...]


def _ones(counts: Counts) -> Floats:
    return np.ones(len(counts.q))


def _own_q(counts: Counts) -> Floats:
    return counts.positives / counts.by_batch + counts.index * len(counts.q) / counts.uniform


ROWS = [
    Row("expected_count", _ones, lambda k: k.c / k.n, True, (0.867, 0.115, 0.991, 0.724), (0.023, 0.005, 0.003, 0.010)),
    Row("  on distinct items, by pi", _ones, lambda k: (k.c > 0) / k.pi, True, (0.867, 0.114, 0.991, 0.724), (0.018, 0.002, 0.004, 0.005)),
    Row("all_corrected", lambda k: 1 / k.n, lambda k: k.c / k.n, False, (0.858, 0.112, 0.966, 0.453), (0.001, 0.002, 0.004, 0.003)),
    Row("inclusion", lambda k: 1 / k.pi, lambda k: (k.c > 0) / k.pi, True, (0.867, 0.114, 0.969, 0.462), (0.001, 0.002, 0.004, 0.003)),
    Row("all_corrected + mask", lambda k: 1 / k.n, lambda k: k.c / k.n, True, (0.985, 0.566, 0.973, 0.495), (0.184, 0.201, 0.207, 0.145)),
    Row("paper_literal", _ones, lambda k: k.c / k.n * k.c[0].sum(), True, (0.999, 0.968, 1.000, 0.998), (0.195, 0.202, 0.207, 0.152)),
    Row("expected_count - mask", _ones, lambda k: k.c / k.n, False, (0.768, 0.063, 0.983, 0.643), (0.071, 0.063, 0.061, 0.060)),
    Row(
        "unigram Q, both streams",
        lambda k: 1 / k.by_batch,
        lambda k: k.c / k.by_batch,
        True,
        (0.996, 0.813, 0.957, 0.395),
        (0.301, 0.308, 0.311, 0.400),
    ),
    Row("each stream its own Q", lambda k: 1 / k.by_batch, _own_q, True, (0.992, 0.714, 0.929, 0.290), (0.233, 0.217, None, 0.174)),
    Row(
        "positive unigram, rest mixture",
        lambda k: 1 / k.by_batch,
        lambda k: k.c / k.n,
        True,
        (0.985, 0.561, 0.874, 0.182),
        (0.190, 0.203, 0.208, 0.150),
    ),
    Row("uncorrected", _ones, lambda k: k.c, True, (0.879, 0.131, 0.994, 0.776), (0.255, 0.108, 0.074, 0.261)),
]
# rows that tests/test_estimators.py knows as well, by the names there: it holds one against the other
SAME_IN_TESTS = {
    "expected_count": "expected_count",
    "all_corrected": "all_corrected",
    "inclusion": "inclusion",
    "all_corrected + mask": "L5: positive corrected, equal ids masked, duplicates kept",
    "paper_literal": "paper_literal",
    "expected_count - mask": "L4: the mask does nothing",
    "unigram Q, both streams": "L6: unigram Q for both streams",
    "each stream its own Q": "L6: each stream by its own Q",
    "positive unigram, rest mixture": "L6: positive by unigram, negatives by mixture",
    "uncorrected": "uncorrected",
}


def zipf(corpus: int) -> Floats:
    weight = 1 / np.arange(1, corpus + 1)
    return np.asarray(weight / weight.sum())


def draw(rng: np.random.Generator, q: Floats, size: Size) -> Counts:
    uniform = np.full(len(q), 1 / len(q))
    positives = rng.multinomial(size.batch - 1, q, size=size.rounds)
    index = rng.multinomial(size.uniform, uniform, size=size.rounds)
    return Counts(q, size.batch, size.uniform, positives.astype(np.float64), index.astype(np.float64))


def world_of_t1() -> tuple[Floats, Counts]:
    """(s, draws) away from the optimum."""
    rng = np.random.default_rng(1)
    q = zipf(500)
    logits = rng.standard_normal(500) + 0.5 * np.log(q * 500)
    return logits, draw(rng, q, Size(500, 128, 128, 4000))


def full_softmax_masses(plain: Floats) -> list[float]:
    """The right answer of T1, case by case."""
    masses = []
    for group, lift in CASES:
        raised = [np.exp(plain + lift * (np.arange(len(plain)) == y)) for y in GROUPS[group]]
        masses.append(float(np.mean([1 - terms[y] / terms.sum() for y, terms in zip(GROUPS[group], raised, strict=True)])))
    return masses


def masses_off_the_positive(row: Row, plain: Floats, counts: Counts) -> tuple[list[float], float]:
    """(T1 case by case, the largest standard error among them)."""
    own, drawn = row.own(counts), row.drawn(counts)
    masses, noise = [], 0.0
    for group, lift in CASES:
        found = []
        for y in GROUPS[group]:
            terms = np.exp(plain + lift * (np.arange(len(plain)) == y))
            copies = drawn[:, y] * terms[y]
            others = drawn @ terms - copies
            found.append(others / (own[y] * terms[y] + others + (0.0 if row.masked else copies)))
        mean = np.mean(found, axis=0)  # all positives of a group meet the same draws
        masses.append(float(mean.mean()))
        noise = max(noise, float(mean.std() / math.sqrt(len(mean))))
    return masses, noise


def world_of_t2(size: Size) -> tuple[Floats, Counts]:
    """(P, draws) at the optimum."""
    rng = np.random.default_rng(3)
    q = zipf(size.corpus)
    p = q * np.exp(1.2 * rng.standard_normal(size.corpus))
    return p / p.sum(), draw(rng, q, size)


def mean_gradient(row: Row, p: Floats, counts: Counts, optimum: Floats | None = None) -> tuple[float, float]:
    """(norm of the mean gradient over y ~ P and the draws at `optimum` (absent: log P), its noise floor)."""
    logits = np.log(p) if optimum is None else optimum
    terms = np.exp(logits - logits.max())
    rounds = len(counts.index)
    total, squares = np.zeros(len(p)), np.zeros(len(p))
    for start in range(0, rounds, CHUNK):
        part = counts.part(start)
        drawn, own = row.drawn(part) * terms, row.own(part) * terms
        z = own + drawn.sum(axis=1, keepdims=True) - (drawn if row.masked else 0.0)  # (rounds, M): were y the positive
        pull = (p / z).sum(axis=1, keepdims=True) - (p / z if row.masked else 0.0)
        gradient = drawn * pull + p * (own / z - 1.0)
        total += gradient.sum(axis=0)
        squares += (gradient**2).sum(axis=0)
    mean = total / rounds
    return float(np.linalg.norm(mean)), float(np.sqrt((squares / rounds - mean**2).sum() / rounds))


def dial_rows(weight: float) -> list[Row]:
    """The designs with logq_weight; no reference."""
    none = (math.nan,) * 4
    return [
        Row("expected_count", lambda k: k.n ** (1 - weight), lambda k: k.c / k.n**weight, True, none, ()),
        Row("  its positive at weight 1", _ones, lambda k: k.c / k.n**weight, True, none, ()),
        Row("all_corrected", lambda k: k.n**-weight, lambda k: k.c / k.n**weight, False, none, ()),
    ]


def t1_table() -> dict[str, Any]:
    logits, counts = world_of_t1()
    rows = []
    for row in ROWS:
        masses, noise = masses_off_the_positive(row, logits, counts)
        difference = float(np.abs(np.subtract(masses, row.masses)).max())
        rows.append({"design": row.name, "measured": masses, "reference": row.masses, "difference": difference, "noise": noise})
    return {"right": full_softmax_masses(logits), "rows": rows}


def t2_table(worlds: dict[str, tuple[Floats, Counts]]) -> list[dict[str, Any]]:
    table = []
    for row in ROWS:
        found = {name: mean_gradient(row, *world) for name, world in worlds.items()}
        measured, noise = [norm for norm, _ in found.values()], [floor for _, floor in found.values()]
        pairs = [(ours, theirs) for ours, theirs in zip(measured, row.norms, strict=True) if theirs is not None]
        difference = max(abs(ours - theirs) for ours, theirs in pairs)
        table.append({"design": row.name, "measured": measured, "reference": row.norms, "difference": difference, "noise": noise})
    return table


def dial_table(world: tuple[Floats, Counts]) -> list[dict[str, Any]]:
    """T2 at the optimum that the dial names, log P - (1 - w) log n, at size B."""
    p, counts = world
    table: dict[str, dict[str, float]] = {}
    for weight in (0.0, 0.25, 0.5, 0.75, 1.0):
        for row in dial_rows(weight):
            norm, _ = mean_gradient(row, p, counts, np.log(p) - (1 - weight) * np.log(counts.n))
            table.setdefault(row.name, {})[f"{weight:g}"] = norm
    return [{"design": name, "measured": norms} for name, norms in table.items()]


def measured() -> dict[str, Any]:
    """Everything this benchmark knows, ready for JSON."""
    started = time.perf_counter()
    worlds = {name: world_of_t2(size) for name, size in SIZES.items()}
    return {
        "benchmark": "estimators",
        "sizes": {name: asdict(size) for name, size in SIZES.items()},
        "t1": t1_table(),
        "t2": t2_table(worlds),
        "dial": dial_table(worlds["B"]),
        "seconds": time.perf_counter() - started,
        **run_record(),
    }


def print_tables(result: dict[str, Any]) -> None:
    print("T1: mean softmax mass off the positive (reference); the largest difference and noise of the four")
    print(f"{'':32}" + "".join(f"{group} +{lift}".rjust(7).ljust(15) for group, lift in CASES) + f"{'difference':>12}{'noise':>7}")
    print(f"{'right: the full softmax':32}" + "".join(f"{mass:7.3f}        " for mass in result["t1"]["right"]))
    for row in result["t1"]["rows"]:
        print(_line(row, row["noise"]))
    print("\nT2: norm of the mean gradient at the optimum, right is 0 (reference); the largest difference and noise of the four")
    print(f"{'':32}" + "".join(name.rjust(7).ljust(15) for name in result["sizes"]) + f"{'difference':>12}{'noise':>7}")
    for row in result["t2"]:
        print(_line(row, max(row["noise"])))
    print("\nT2 of the dial at size B: norm of the mean gradient at s = log P - (1 - logq_weight) log n, by logq_weight")
    print(f"{'':32}" + "".join(weight.rjust(8) for weight in result["dial"][0]["measured"]))
    for row in result["dial"]:
        print(f"{row['design']:32}" + "".join(f"{norm:8.3f}" for norm in row["measured"].values()))
    print(f"\n{result['seconds']:.0f} s, commit {result['commit'][:10]}, {result['date']}, {result['machine']}")


def _line(row: dict[str, Any], noise: float) -> str:
    pairs = zip(row["measured"], row["reference"], strict=True)
    cells = [f"{ours:7.3f} {'(–)' if theirs is None else f'({theirs:.3f})':7}" for ours, theirs in pairs]
    return f"{row['design']:32}" + "".join(cells) + f"{row['difference']:12.3f}{noise:7.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog="example: python benchmarks/estimators.py --json")
    parser.add_argument("--json", action="store_true", help="print one JSON line instead of the tables")
    result_as_json = parser.parse_args().json
    result = measured()
    if result_as_json:
        print(json.dumps(result))
    else:
        print_tables(result)


if __name__ == "__main__":
    main()
