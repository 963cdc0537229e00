"""How fast is bulk embedding beside the bare matrix products of the item tower? And how much memory does it take?

    python benchmarks/embed.py           # a table; about three minutes on two cores
    python benchmarks/embed.py --json    # one JSON line on stdout

products     x @ W for every layer of the item tower (hidden layers, input embedding, content bias), in float32 as in bulk embedding,
             over the same blocks of inputs that are there already: nobody who computes these vectors can be faster. Once with a
             block a thread, once with all threads in one product after the other ("one by one"); the faster one of a round counts
embedding    encode.encode_corpus into memory that is there: looked-up ids, categories, bags of words and numbers, the tower, unit
             length, biases
new memory   the same into memory that the system has to find and clear first: 1 GB for 1,000,000 items
catalogue    encode.encode_catalogue: the same from the items table, whose features are made block by block
Products and embedding take turns in every round, so that a busy machine is busy for all: the figure is the median over rounds, the
ratio the median of each round's ratio. The aim: embedding at 60 % of the products' rate or more, at 1,000,000 items. They are the
items of a made-up shop (`shortlist fetch synthetic`); the model has that project's settings and is not trained.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from record import run_record

from shortlist.config import for_log, load_config
from shortlist.dataset import Dataset, make_dataset
from shortlist.datasets.fetch import fetch_project
from shortlist.encode import encode_catalogue, encode_corpus
from shortlist.id_places import row_blocks
from shortlist.progress import stderr_console
from shortlist.project import open_project
from shortlist.towers import TwoTower, initial_tables, input_width

EVENTS, BLOCK = 100_000, 2048


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def bare_products(model: TwoTower, width: int, count: int, *, in_threads: bool) -> None:
    """Nothing comes back: the matrix products of so many items, a block of random inputs used again and again.

    in_threads   a block a thread, as bulk embedding does; else the threads of one product after the other
    """
    x = torch.rand(BLOCK, width)
    layers = [layer.weight.T.contiguous() for layer in model.item.mlp or () if isinstance(layer, torch.nn.Linear)]
    aside = [layer.weight.T.contiguous() for layer in (model.item.embedding, model.item.bias) if layer is not None]
    kept = threading.local()

    @torch.no_grad()
    def multiply(rows: slice) -> None:
        if not hasattr(kept, "memory"):
            kept.memory = {wide: torch.empty(BLOCK, wide) for wide in {weight.shape[1] for weight in layers + aside}}
        size = rows.stop - rows.start
        deep = x[:size]
        for weight in layers:
            deep = torch.mm(deep, weight, out=kept.memory[weight.shape[1]][:size])
        for weight in aside:
            torch.mm(x[:size], weight, out=kept.memory[weight.shape[1]][:size])

    if in_threads:
        threads = torch.get_num_threads()
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            list(pool.map(multiply, row_blocks(count, BLOCK)))
        torch.set_num_threads(threads)
    else:
        for rows in row_blocks(count, BLOCK):
            multiply(rows)


def peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def shop(folder: Path, items: int) -> tuple[TwoTower, dict[str, torch.Tensor], Dataset]:
    """(an untrained model, its tables, the dataset) of a made-up shop."""
    path = fetch_project("synthetic", folder, console=stderr_console(), sizes={"events": EVENTS, "items": items})
    project = open_project(load_config(path, ["evaluate.protocol='holdout'", "model.match_dim=0"]))
    dataset = make_dataset(project, project.log)
    torch.manual_seed(0)
    model = TwoTower(dataset.item_encoder, dataset.query_encoder, for_log(project.config, len(dataset.train)).model).eval()
    return model, initial_tables(dataset, model.settings, torch.Generator().manual_seed(0), dataset.item_counts), dataset


def measured(items: int, rounds: int, folder: Path) -> dict[str, Any]:
    """Everything this benchmark knows, ready for JSON."""
    model, tables, dataset = shop(folder, items)
    width = input_width(dataset.item_encoder, model.settings)
    before = peak_gb()
    catalogue = seconds(lambda: encode_catalogue(model, tables, dataset.item_encoder, dataset.items.frame))
    after = peak_gb()
    kept = encode_corpus(model, tables, dataset.item_features)
    work: dict[str, Callable[[], object]] = {
        "products": lambda: bare_products(model, width, items, in_threads=True),
        "one by one": lambda: bare_products(model, width, items, in_threads=False),
        "embedding": lambda: encode_corpus(model, tables, dataset.item_features, into=kept),
        "new memory": lambda: encode_corpus(model, tables, dataset.item_features),
    }
    taken: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds + 1):  # the first one warms up
        for name, run in work.items():
            taken[name].append(seconds(run))
    taken = {name: times[1:] for name, times in taken.items()}
    bare = [min(pair) for pair in zip(taken["products"], taken["one by one"], strict=True)]
    flops = 2 * items * sum(layer.weight.numel() for layer in model.item.modules() if isinstance(layer, torch.nn.Linear))
    return {
        "benchmark": "embed",
        "items": items,
        "input_width": width,
        "hidden": model.settings.hidden,
        "lookups_per_item": sum(len(column.values) for column in dataset.item_features.values()) / items,
        "rounds": rounds,
        "threads": torch.get_num_threads(),
        "seconds": taken,
        "median_seconds": {**{name: statistics.median(times) for name, times in taken.items()}, "catalogue": catalogue},
        "items_per_second": {name: items / statistics.median(times) for name, times in taken.items()},
        "rate_to_products": statistics.median(fast / own for fast, own in zip(bare, taken["embedding"], strict=True)),
        "products_gflops": 1e-9 * flops / statistics.median(bare),
        "peak_gb": {"before": before, "catalogue": after, "end": peak_gb()},
        **run_record(),
    }


def print_table(result: dict[str, Any]) -> None:
    print(f"{result['items']:,} items, inputs of {result['input_width']}, towers {result['hidden']}, {result['rounds']} rounds")
    for name, value in result["median_seconds"].items():
        rounds = " ".join(f"{second:.2f}" for second in result["seconds"].get(name, []))
        print(f"{name:12}{value:9.2f} s{result['items'] / value:14,.0f} items/s   {rounds}")
    print(f"rate of embedding to that of the products: {result['rate_to_products']:.2f} ({result['products_gflops']:.0f} GFLOP/s)")
    memory = result["peak_gb"]
    print(
        f"peak memory: {memory['before']:.2f} GB before, {memory['catalogue']:.2f} GB with the catalogue, {memory['end']:.2f} GB at the end"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog="example: python benchmarks/embed.py --json")
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print one JSON line instead of the table")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measured(arguments.items, arguments.rounds, Path(folder))
    if arguments.json:
        print(json.dumps(result))
    else:
        print_table(result)


if __name__ == "__main__":
    main()
