"""TensorFlow Recommenders: its retrieval task with B' further candidates, its correction and its removal of equal ids."""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["TF_USE_LEGACY_KERAS"] = "1"  # what this library asks for

import argparse
import itertools

import numpy as np
import tensorflow as tf
import tensorflow_recommenders as tfrs
from turns import take_turns
from workload import ADAGRAD_START, BAG, DIM, ENTITIES, HIDDEN, LEARNING_RATE, SEGMENTS, TEMPERATURE, WORDS, Side, make_workload


class Tower(tf.keras.Model):
    """id, segment and words -> a vector of length 1."""

    def __init__(self, side: Side) -> None:
        super().__init__()
        start = tf.keras.initializers.RandomNormal(stddev=DIM**-0.5)
        self.tables = [tf.keras.layers.Embedding(rows, DIM, embeddings_initializer=start) for rows in (ENTITIES, SEGMENTS, WORDS)]
        self.segment, self.words = tf.constant(side.segment, tf.int32), tf.constant(side.words, tf.int32)
        self.hidden = [tf.keras.layers.Dense(width, "relu") for width in HIDDEN[:-1]] + [tf.keras.layers.Dense(HIDDEN[-1])]

    def call(self, ids: tf.Tensor) -> tf.Tensor:
        by_id, by_segment, by_word = self.tables
        words = tf.reduce_sum(by_word(tf.gather(self.words, ids)), axis=1) / BAG
        x = tf.concat([by_id(ids), by_segment(tf.gather(self.segment, ids)), words], axis=1)
        for layer in self.hidden:
            x = layer(x)
        return tf.math.l2_normalize(tf.cast(x, tf.float32), axis=1)


class Model(tfrs.Model):
    """Both towers and the task."""

    def __init__(self, users: Side, items: Side, *, remove_hits: bool) -> None:
        super().__init__()
        self.query, self.item = Tower(users), Tower(items)
        mean = tf.keras.losses.CategoricalCrossentropy(from_logits=True, reduction=tf.keras.losses.Reduction.SUM_OVER_BATCH_SIZE)
        self.task = tfrs.tasks.Retrieval(loss=mean, temperature=TEMPERATURE, remove_accidental_hits=remove_hits)

    def compute_loss(self, inputs: dict[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        return self.task(
            self.query(inputs["user"]),
            self.item(inputs["item"]),
            candidate_sampling_probability=inputs["expected_count"],
            candidate_ids=inputs["item"],
            compute_metrics=False,
        )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--index-batch", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--keep-hits", action="store_true", help="do not remove accidental hits: a cheaper, wrong loss")
    parser.add_argument("--bfloat16", action="store_true", help="mixed_bfloat16 of Keras; with --keep-hits")
    parser.add_argument("--xla", action="store_true", help="compile the step with XLA")
    options = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(options.threads)
    if options.bfloat16:
        tf.keras.mixed_precision.set_global_policy("mixed_bfloat16")
    workload = make_workload()
    model = Model(workload.users, workload.items, remove_hits=not options.keep_hits)
    model.compile(tf.keras.optimizers.Adagrad(LEARNING_RATE, initial_accumulator_value=ADAGRAD_START, epsilon=1e-12))
    counts = np.exp(workload.log_n(options.index_batch))
    batches = [
        {
            "user": tf.constant(batch["user"], tf.int32),
            "item": tf.constant(batch["item"], tf.int32),
            "expected_count": tf.constant(counts[batch["item"]]),
        }
        for batch in workload.batches(32, options.index_batch)
    ]
    turns = itertools.cycle(batches)
    train_step = tf.function(model.train_step, jit_compile=options.xla)
    take_turns(lambda: float(train_step(next(turns))["loss"]))


if __name__ == "__main__":
    main()
