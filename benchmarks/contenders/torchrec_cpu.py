"""TorchRec on CPU: the fused table kernel that its sharded collections run, FBGEMM's, with Adagrad inside the backward pass."""

from __future__ import annotations

import argparse
import itertools

import torch
import torchrec
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation, PoolingMode
from fbgemm_gpu.split_table_batched_embeddings_ops_training import ComputeDevice, SplitTableBatchedEmbeddingBagsCodegen
from plain_torch import loss_of
from torch import nn
from torch.nn import functional
from turns import take_turns
from workload import ADAGRAD_START, BAG, DIM, ENTITIES, HIDDEN, LEARNING_RATE, SEGMENTS, WORDS, Side, make_workload


class Tower(nn.Module):
    """id, segment and words -> a vector of length 1."""

    def __init__(self, side: Side) -> None:
        super().__init__()
        self.tables = SplitTableBatchedEmbeddingBagsCodegen(
            embedding_specs=[(rows, DIM, EmbeddingLocation.HOST, ComputeDevice.CPU) for rows in (ENTITIES, SEGMENTS, WORDS)],
            optimizer=EmbOptimType.EXACT_ADAGRAD,
            learning_rate=LEARNING_RATE,
            eps=ADAGRAD_START**0.5,  # this kernel starts its sums at 0
            pooling_mode=PoolingMode.MEAN,
        )
        for weight in self.tables.split_embedding_weights():
            nn.init.normal_(weight, std=DIM**-0.5)
        self.segment, self.words = torch.from_numpy(side.segment), torch.from_numpy(side.words)
        self.hidden = nn.Sequential(nn.Linear(3 * DIM, HIDDEN[0]), nn.ReLU(), nn.Linear(HIDDEN[0], HIDDEN[1]))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        lengths = torch.cat([torch.ones(2 * len(ids), dtype=torch.int64), torch.full((len(ids),), BAG)])
        keyed = torchrec.KeyedJaggedTensor(
            ["id", "segment", "words"], torch.cat([ids, self.segment[ids], self.words[ids].ravel()]), lengths=lengths
        )
        x = self.tables(keyed.values(), keyed.offsets())
        return functional.normalize(self.hidden(x).float(), dim=1)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--index-batch", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--bfloat16", action="store_true", help="autocast to bfloat16")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    workload = make_workload()
    query, item = Tower(workload.users), Tower(workload.items)
    parameters = [*query.hidden.parameters(), *item.hidden.parameters()]
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
