"""The bound: the matrix products of the step alone, forward and backward, into memory that is used again."""

from __future__ import annotations

import argparse

import torch
from turns import take_turns
from workload import BATCH, DIM, HIDDEN


def products(index_batch: int, kind: torch.dtype) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """(a, b, out) of every product: each layer and the logits, each with the gradients of both its factors."""
    made = []

    def add(left: torch.Tensor, right: torch.Tensor) -> None:
        result = torch.mm(left, right)
        made.extend([(left, right, result), (result, right.T, left.clone()), (left.T, result, right.clone())])

    def filled(*shape: int) -> torch.Tensor:
        return (torch.randn(*shape) / shape[-1] ** 0.5).to(kind)

    for rows in (BATCH, BATCH + index_batch):
        for width, out in zip((3 * DIM, *HIDDEN), HIDDEN, strict=False):
            add(filled(rows, width), filled(out, width).T)
    add(filled(BATCH, HIDDEN[-1]), filled(BATCH + index_batch, HIDDEN[-1]).T)
    return made


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--index-batch", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--bfloat16", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    made = products(options.index_batch, torch.bfloat16 if options.bfloat16 else torch.float32)

    def step() -> float:
        for left, right, out in made:
            torch.mm(left, right, out=out)
        return 0.0

    take_turns(step)


if __name__ == "__main__":
    main()
