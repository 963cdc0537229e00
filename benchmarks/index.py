"""How fast is each kind of index, how much does it find, and what does ours cost beside the bare library?

    python benchmarks/index.py                      # 200k x 64; tables; about four minutes on two cores, most of it building
    python benchmarks/index.py --large              # 1M x 128; about twenty minutes and 4 GB
    python benchmarks/index.py --large --keep built # what was built and tuned is kept in `built`, and opened the next time
    python benchmarks/index.py --json               # one JSON line on stdout

Data: a cluster for `--cluster` items, log-normal norms (sigma .25), unit queries near the same clusters, inner product; k = 100. One
query at a time on one thread, as a request comes. Approximate kinds are tuned to `--recall` on 1,000 queries; recall is of 500 others,
against exact search. "bare" is the library alone at the same partitions, re-scoring as many rows as ours names by its own float32
copy of the vectors, as it does by default, ids and float scores as it gives them; of exact search, one matrix product and a partial sort.
ScaNN's ours orders those rows by 8-bit codes and compares few by their vectors, so there is a second one: "bare, 8 bits" re-scores them by
8-bit codes alone, whose scores it returns. All are timed in turn, TURNS times each, and the ratios, of queries a second of processor
time, are medians of theirs.
Filters let through a random share of the rows, prepared once. Times are medians; a busy machine shows in p99.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy: one query, one core

import msgspec
import numpy as np
from numpy.typing import NDArray
from record import run_record

from shortlist.index import engines
from shortlist.index.contract import Index
from shortlist.index.exact import ExactIndex
from shortlist.index.faiss import FaissIndex
from shortlist.index.int8 import Int8Index
from shortlist.index.kinds import KINDS
from shortlist.index.proposing import ProposingIndex
from shortlist.index.scann import ScannIndex, tree_and_codes
from shortlist.index.tuning import tuned
from shortlist.sections import IndexSettings

Floats = NDArray[np.float32]
Search = Callable[[Floats], NDArray[Any]]  # a query -> rows
K = 100
NORM_SIGMA = 0.25
SPREAD = 0.7  # length of the noise around a centre of length 1
TUNING, ASKED, TIMED, FILTERED = 1000, 500, 200, 100
TURNS = 7
SHARES = (0.5, 0.1, 0.01, 0.001)
EXCLUDED = 10_000


def corpus(size: int, dim: int, queries: int, *, cluster: int = 100, seed: int = 0) -> tuple[Floats, Floats]:
    """(vectors (size, dim), unit queries (queries, dim))."""
    random = np.random.default_rng(seed)
    clusters = size // cluster
    centres = random.standard_normal((clusters, dim), dtype=np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)

    def directions(count: int) -> Floats:
        points = centres[random.integers(clusters, size=count)]
        points += np.float32(SPREAD / np.sqrt(dim)) * random.standard_normal((count, dim), dtype=np.float32)
        return points / np.linalg.norm(points, axis=1, keepdims=True)

    norms = np.exp(NORM_SIGMA * random.standard_normal((size, 1))).astype(np.float32)
    return directions(size) * norms, directions(queries)


def timed(search: Search, queries: Floats) -> dict[str, float]:
    """p50 and p99 in microseconds, and queries a second of processor time (its median), of one query after the other.

    On a busy machine a query waits for a processor; what it takes of one, it takes all the same.
    """
    for query in queries[:20]:
        search(query)
    seconds, processor = [], []
    for query in queries[:TIMED]:
        start, begun = time.perf_counter(), time.thread_time()
        search(query)
        processor.append(time.thread_time() - begun)
        seconds.append(time.perf_counter() - start)
    p50, p99 = np.quantile(seconds, [0.5, 0.99]) * 1e6
    taken = float(np.median(processor)) * 1e6
    return {"p50_us": round(float(p50), 1), "p99_us": round(float(p99), 1), "taken_us": round(taken, 1), "per_second": round(1e6 / taken)}


def recall(search: Search, queries: Floats, true: NDArray[np.int64]) -> float:
    """The mean share of each query's true rows that are found."""
    return round(
        float(np.mean([len(np.intersect1d(search(query), rows)) / len(rows) for query, rows in zip(queries, true, strict=True)])), 4
    )


def bare_search(index: Index, vectors: Floats, kept: Path | None) -> Search:
    """The library behind `index`, asked without us for K rows."""
    if isinstance(index, ScannIndex):
        effort = index.efforts[0]
        if kept is not None and kept.exists():
            searcher = engines.require("scann").scann_ops_pybind.load_searcher(str(kept), assets_backcompat_shim=False)
        else:
            with engines.unheard():
                searcher = tree_and_codes(vectors, index.leaves, threads=os.cpu_count() or 1).reorder(effort.rescored).build()
            if kept is not None:
                kept.mkdir()
                searcher.serialize(str(kept), relative_path=True)
        searcher.set_num_threads(1)
        return lambda query: searcher.search(query, K, effort.rescored, effort.searched)[0]
    if isinstance(index, FaissIndex):
        faiss = engines.require("faiss")
        effort, library = index.efforts[0], index.library
        refined = faiss.IndexRefineFlat(library, faiss.swig_ptr(vectors))
        inner = faiss.SearchParametersIVF(nprobe=effort.searched)
        parameters = faiss.IndexRefineSearchParameters(k_factor=effort.rescored / K, base_index_params=inner)
        faiss.omp_set_num_threads(1)
        return lambda query: refined.search(query[None], K, params=parameters)[1][0]
    if isinstance(index, Int8Index):
        return lambda query: np.argpartition(index.estimates(query), len(vectors) - K)[-K:]
    return lambda query: np.argpartition(vectors @ query, len(vectors) - K)[-K:]


def bare_by_eight_bits(index: Index) -> Search | None:
    """ScaNN asked for K rows by its 8-bit codes, which ours holds; None for all others."""
    if not isinstance(index, ScannIndex) or not index.has_finer_codes:
        return None
    effort, searcher = index.efforts[0], index.library
    return lambda query: searcher.search(query, K, effort.rescored, effort.searched)[0]


def ratio(turns: list[tuple[dict[str, float], dict[str, float]]]) -> float:
    """The median of ours to theirs, in queries a second."""
    return round(float(np.median([mine["per_second"] / theirs["per_second"] for mine, theirs in turns])), 3)


def measured(kind: str, vectors: Floats, queries: Floats, target: float, kept: Path | None) -> dict[str, Any]:
    """Everything about one kind."""
    asked = queries[TUNING : TUNING + ASKED]
    index, facts = built(kind, vectors, queries[:TUNING], target, kept)
    exact = ExactIndex.build(vectors, IndexSettings())
    true, _ = exact.search(asked, K)

    def ours(query: Floats) -> NDArray[Any]:
        return index.search_one(query, K)[0]

    bare = bare_search(index, vectors, kept and kept / f"bare-{kind}")
    coarse = bare_by_eight_bits(index)
    turns = [(timed(ours, asked), timed(bare, asked), None if coarse is None else timed(coarse, asked)) for _ in range(TURNS)]
    figures: dict[str, Any] = {
        "kind": kind,
        **facts,
        "ours": {"recall": recall(ours, asked, true), **median([mine for mine, _, _ in turns])},
        "bare": {"recall": recall(bare, asked, true), **median([theirs for _, theirs, _ in turns])},
        "to_bare": ratio([(mine, theirs) for mine, theirs, _ in turns]),
        **(
            {}
            if coarse is None
            else {
                "bare_8_bits": {"recall": recall(coarse, asked, true), **median([theirs for _, _, theirs in turns if theirs])},
                "to_bare_8_bits": ratio([(mine, theirs) for mine, _, theirs in turns if theirs]),
            }
        ),
        "filters": [_filtered(index, exact, share, asked[:FILTERED]) for share in SHARES],
        "excluded": _excluding(index, exact, asked[:FILTERED]),
    }
    return figures


def built(kind: str, vectors: Floats, queries: Floats, target: float, kept: Path | None) -> tuple[Index, dict[str, Any]]:
    """(the index, what was found out while it was built): now, or when `kept` was filled."""
    folder = kept and kept / kind
    if folder is not None and (folder / "facts.json").exists():
        facts: dict[str, Any] = json.loads((folder / "facts.json").read_bytes())
        return KINDS[kind].open(folder / "index", vectors), facts
    settings = IndexSettings(kind=kind, target_recall=target, target_k=K)
    start, processor = time.perf_counter(), time.process_time()
    index = KINDS[kind].build(vectors, settings)
    facts = {"build_s": round(time.perf_counter() - start, 1), "build_processor_s": round(time.process_time() - processor, 1)}
    if isinstance(index, ProposingIndex):
        index, proof = tuned(index, queries, settings)
        facts |= {"leaves": index.leaves, "efforts": list(map(msgspec.to_builtins, index.efforts)), "proof": msgspec.to_builtins(proof)}
    facts |= {"build_and_tune_s": round(time.perf_counter() - start, 1), "exact": index.is_exact}
    if folder is not None:
        (folder / "index").mkdir(parents=True)
        index.save(folder / "index")
        (folder / "facts.json").write_text(json.dumps(facts))
    return index, facts


def median(turns: list[dict[str, float]]) -> dict[str, float]:
    """The median of each figure."""
    return {name: round(float(np.median([turn[name] for turn in turns])), 1) for name in turns[0]}


def _filtered(index: Index, exact: ExactIndex, share: float, asked: Floats) -> dict[str, Any]:
    mask = np.random.default_rng(1).random(index.size) < share
    eligible = index.prepare(mask)
    true = exact.search(asked, K, eligible=mask)[0]

    def search(query: Floats) -> NDArray[Any]:
        return index.search_one(query, K, eligible=eligible)[0]

    found = np.stack([search(query) for query in asked])
    missing = int(((found < 0) & (true >= 0)).sum())
    hits = [len(np.intersect1d(a[a >= 0], b[b >= 0])) / (b >= 0).sum() for a, b in zip(found, true, strict=True)]
    return {"share": share, "eligible": len(eligible), "recall": round(float(np.mean(hits)), 4), "missing": missing, **timed(search, asked)}


def _excluding(index: Index, exact: ExactIndex, asked: Floats) -> dict[str, Any]:
    """10,000 random rows and each query's own best 50 left out."""
    random = np.random.default_rng(2).integers(index.size, size=EXCLUDED - 50)
    best = exact.search(asked, 50)[0]
    out = [np.concatenate([random, rows]) for rows in best]
    true = exact.search(asked, K, exclude=out)[0]
    found = [index.search_one(query, K, exclude=rows)[0] for query, rows in zip(asked, out, strict=True)]
    hits = [len(np.intersect1d(a, b)) / K for a, b in zip(found, true, strict=True)]

    def search(query: Floats) -> NDArray[Any]:
        return index.search_one(query, K, exclude=out[0])[0]

    return {"rows": EXCLUDED, "recall": round(float(np.mean(hits)), 4), **timed(search, asked)}


def printed(results: list[dict[str, Any]]) -> None:
    """Nothing comes back: the tables, for people."""
    heads = ["build s", "+ tuning", "recall", "p50 us", "p99 us", "per s", "bare recall", "bare p50", "ours/bare", "8 bits"]
    print(f"{'kind':8}" + "".join(f"{head:>12}" for head in heads))
    for one in results:
        ours, bare = one["ours"], one["bare"]
        cells = [one["build_s"], one["build_and_tune_s"], ours["recall"], ours["p50_us"], ours["p99_us"], ours["per_second"]]
        cells += [bare["recall"], bare["p50_us"], one["to_bare"], one.get("to_bare_8_bits", "")]
        print(f"{one['kind']:8}" + "".join(f"{cell:12}" for cell in cells))
    print(f"\n{'kind':8}{'filter':>10}{'recall':>9}{'missing':>9}{'taken us':>9}{'to unfiltered':>15}")
    for one in results:
        for row in one["filters"]:
            ratio = row["taken_us"] / one["ours"]["taken_us"]
            print(f"{one['kind']:8}{row['share']:10.1%}{row['recall']:9.4f}{row['missing']:9d}{row['taken_us']:9.0f}{ratio:15.2f}")
        print(f"{one['kind']:8}{'-10,000':>10}{one['excluded']['recall']:9.4f}{'':9}{one['excluded']['taken_us']:9.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON line instead of tables")
    parser.add_argument("--large", action="store_true", help="1M x 128 instead of 200k x 64")
    parser.add_argument("--cluster", type=int, default=100, help="items of a cluster: with K or fewer, the best K lie in several")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where what was built is kept, and found again")
    parser.add_argument("--recall", type=float, default=0.95, help="what approximate kinds are tuned to")
    parser.add_argument("--kinds", nargs="+", default=["exact", "int8", "scann", "faiss"])
    options = parser.parse_args()
    size, dim = (1_000_000, 128) if options.large else (200_000, 64)
    vectors, queries = corpus(size, dim, TUNING + ASKED, cluster=options.cluster)
    kept = options.keep and options.keep / f"{size}x{dim}-{options.cluster}-{options.recall:g}"
    results = []
    for kind in options.kinds:
        if kind in ("scann", "faiss") and not engines.is_installed(kind):
            print(f"{kind} is not installed: left out")
            continue
        results.append(measured(kind, vectors, queries, options.recall, kept))
        print(f"{kind}: {results[-1]['ours']}", file=sys.stderr)
    if options.json:
        corpus_facts = {"size": size, "dim": dim, "cluster": options.cluster}
        print(json.dumps({"benchmark": "index", **corpus_facts, "k": K, "results": results, **run_record()}))
    else:
        printed(results)


if __name__ == "__main__":
    main()
