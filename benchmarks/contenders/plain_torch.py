"""PyTorch as its manual shows it: EmbeddingBag with sparse gradients, and Adagrad, which takes them."""

from __future__ import annotations

import argparse
import itertools

import torch
from torch import nn
from torch.nn import functional
from turns import take_turns
from workload import ADAGRAD_START, BATCH, DIM, ENTITIES, HIDDEN, LEARNING_RATE, SEGMENTS, TEMPERATURE, WORDS, Side, make_workload


class Tower(nn.Module):
    """id, segment and words -> a vector of length 1."""

    def __init__(self, side: Side) -> None:
        super().__init__()
        self.ids, self.segments, self.bag = (nn.EmbeddingBag(n, DIM, mode="mean", sparse=True) for n in (ENTITIES, SEGMENTS, WORDS))
        for table in (self.ids, self.segments, self.bag):
            nn.init.normal_(table.weight, std=DIM**-0.5)
        self.segment, self.words = torch.from_numpy(side.segment), torch.from_numpy(side.words)
        self.hidden = nn.Sequential(nn.Linear(3 * DIM, HIDDEN[0]), nn.ReLU(), nn.Linear(HIDDEN[0], HIDDEN[1]))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        pieces = [self.ids(ids[:, None]), self.segments(self.segment[ids][:, None]), self.bag(self.words[ids])]
        return functional.normalize(self.hidden(torch.cat(pieces, dim=1)).float(), dim=1)


def loss_of(queries: torch.Tensor, candidates: torch.Tensor, item: torch.Tensor, log_n: torch.Tensor) -> torch.Tensor:
    """The default loss: negatives by expected counts, the positive uncorrected, equal ids masked."""
    logits = queries @ candidates.T / TEMPERATURE  # (B, B + B')
    own = logits.diagonal()
    hits = item[:BATCH, None] == item[None, :]
    negatives = (logits - log_n).masked_fill(hits, float("-inf"))
    return (torch.logsumexp(torch.cat([own[:, None], negatives], dim=1), dim=1) - own).mean()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--index-batch", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--bfloat16", action="store_true", help="autocast to bfloat16")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    workload = make_workload()
    query, item = Tower(workload.users), Tower(workload.items)
    parameters = [*query.parameters(), *item.parameters()]
    optimizer = torch.optim.Adagrad(parameters, lr=LEARNING_RATE, initial_accumulator_value=ADAGRAD_START)
    log_n = torch.from_numpy(workload.log_n(options.index_batch))
    batches = [{name: torch.from_numpy(rows) for name, rows in batch.items()} for batch in workload.batches(32, options.index_batch)]
    turns = itertools.cycle(batches)

    def step() -> float:
        batch = next(turns)
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=options.bfloat16):
            queries, candidates = query(batch["user"]), item(batch["item"])
            loss = loss_of(queries, candidates, batch["item"], log_n[batch["item"]])
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    take_turns(step)


if __name__ == "__main__":
    main()
