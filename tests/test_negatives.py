"""Expected counts by hand and against simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from shortlist.frequency import ItemFrequency, exact_frequency
from shortlist.losses import Candidates, full_softmax_loss, sampled_softmax_loss
from shortlist.negatives import (
    MixedNegatives,
    SampledNegatives,
    WholeCorpus,
    expected_distinct,
    make_negatives,
    proposal_shares,
    tries_for,
)
from shortlist.sections import NegativeSettings

COUNTS = np.array([5, 0, 2, 1, 3])  # M = 5 items, 11 positives


def mixed(drawn: int, *, replacement: bool = False) -> MixedNegatives:
    return MixedNegatives(exact_frequency(COUNTS), drawn, replacement)


# --- log_n


def test_counts_that_are_kept_are_those_of_their_batch_size() -> None:
    kept, rows = MixedNegatives(exact_frequency(COUNTS), 2, unchosen_weight=0.25), np.array([3, 0, 3])
    sizes = [*range(2, 9), 2, 3]  # more than are kept, and some again
    for size in sizes:
        fresh = MixedNegatives(exact_frequency(COUNTS), 2, unchosen_weight=0.25).log_n(rows, size)
        told = kept.log_n(rows, size, kept.frequency.expected_positives(rows, size - 1))
        assert kept.log_n(rows, size).tolist() == fresh.tolist() == told.tolist()


def test_log_n_adds_the_share_of_the_other_positives_and_of_the_uniform_draws() -> None:
    # B = 4, B' = 2, M = 5: n = 3 q + 2/5
    expected = [3 * 5 / 11 + 0.4, 0.4, 3 * 2 / 11 + 0.4, 3 * 1 / 11 + 0.4, 3 * 3 / 11 + 0.4]
    np.testing.assert_allclose(np.exp(mixed(2).log_n(np.arange(5), 4)), expected, rtol=1e-6)


def test_an_item_that_nobody_chose_has_the_uniform_part_alone() -> None:
    assert mixed(2).log_n(np.array([1]), 1024)[0] == pytest.approx(math.log(2 / 5), abs=1e-6)


def test_one_query_alone_meets_uniform_draws_alone() -> None:
    np.testing.assert_allclose(mixed(3).log_n(np.arange(5), 1), np.full(5, math.log(3 / 5)), rtol=1e-6)


def test_a_count_above_one_is_not_clipped() -> None:
    # B = 1001: n_0 = 1000 * 5/11 + 2/5
    assert math.exp(mixed(2).log_n(np.array([0]), 1001)[0]) == pytest.approx(1000 * 5 / 11 + 0.4, rel=1e-6)


def test_a_count_of_a_billionth_is_not_clipped() -> None:
    counts = np.ones(10**7, np.int64)
    counts[0] = 10**9
    negatives = MixedNegatives(exact_frequency(counts), 0)
    assert math.exp(negatives.log_n(np.array([1]), 2)[0]) == pytest.approx(1 / (10**9 + 10**7 - 1), rel=1e-5)


def test_the_same_item_has_the_same_log_n_in_both_streams() -> None:
    columns = np.array([0, 2, 0, 4, 0, 2])  # the first three as positives, the others as draws: they cannot be told apart
    log_n = mixed(3).log_n(columns, 3)
    assert log_n[0] == log_n[2] == log_n[4]
    assert log_n[1] == log_n[5]
    assert log_n.dtype == np.float32


def test_an_item_that_can_never_be_a_negative_is_named() -> None:
    with pytest.raises(ValueError, match="positive expected count: item row 1 has 0 with B' = 0"):
        mixed(0).log_n(np.array([0, 1, 2]), 4)


def test_an_item_that_nobody_chose_may_weigh_less_in_the_sum() -> None:
    # weight 1/4: its count 2/5 is divided by it, 8/5; the others keep theirs
    lighter = MixedNegatives(exact_frequency(COUNTS), 2, unchosen_weight=0.25)
    counts = np.exp(lighter.log_n(np.arange(5), 4))
    assert counts[1] == pytest.approx(8 / 5)
    np.testing.assert_allclose(counts[[0, 2, 3, 4]], np.exp(mixed(2).log_n(np.array([0, 2, 3, 4]), 4)), rtol=1e-6)
    np.testing.assert_allclose(np.exp(lighter.log_weight()), [1, 0.25, 1, 1, 1], rtol=1e-6)
    assert not mixed(2).log_weight().any()


# --- draws


@pytest.mark.parametrize("replacement", [False, True])
def test_the_mean_count_of_every_item_among_a_rows_negatives_is_its_expected_count(replacement: bool) -> None:
    rng = np.random.default_rng(5)
    negatives, batch, rounds = mixed(3, replacement=replacement), 4, 20_000
    expected = np.exp(negatives.log_n(np.arange(5), batch).astype(np.float64))
    others = rng.multinomial(batch - 1, negatives.frequency.q, size=rounds)
    drawn = np.stack([np.bincount(negatives.sample(rng), minlength=5) for _ in range(rounds)])
    mean = (others + drawn).mean(axis=0)
    # the exact variance of one round: (B-1) q (1-q) for the positives; uniform B' p (1-p) with, p (1-p) without replacement
    q, p = negatives.frequency.q, 1 / 5
    uniform = 3 * p * (1 - p) if replacement else 0.6 * 0.4
    error = np.sqrt(((batch - 1) * q * (1 - q) + uniform) / rounds)
    assert (np.abs(mean - expected) < 4.5 * error).all()


def test_without_replacement_no_item_is_drawn_twice() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        drawn = mixed(4).sample(rng)
        assert len(drawn) == 4 == len(set(drawn.tolist()))


def test_without_replacement_a_small_corpus_is_drawn_whole_and_counted_so() -> None:
    negatives = mixed(7)  # B' = 7 > M = 5
    assert sorted(negatives.sample(np.random.default_rng(0)).tolist()) == [0, 1, 2, 3, 4]
    assert negatives.drawn == 5
    assert math.exp(negatives.log_n(np.array([1]), 4)[0]) == pytest.approx(1.0)  # not 7/5


def test_with_replacement_a_small_corpus_is_drawn_more_often_than_it_has_items() -> None:
    negatives = mixed(7, replacement=True)
    assert len(negatives.sample(np.random.default_rng(0))) == 7
    assert math.exp(negatives.log_n(np.array([1]), 4)[0]) == pytest.approx(7 / 5)


def test_no_index_draws_are_no_draws() -> None:
    assert mixed(0).sample(np.random.default_rng(0)).tolist() == []


def test_the_same_generator_state_gives_the_same_draws() -> None:
    first, second = (mixed(3).sample(np.random.default_rng(9)).tolist() for _ in range(2))
    assert first == second


def test_the_mean_number_of_accidental_hits_is_counted_by_hand_and_met_by_draws() -> None:
    # B = 4, B' = 2: 3 * (25 + 0 + 4 + 1 + 9) / 121 + 2/5
    expected = 3 * 39 / 121 + 0.4
    assert mixed(2).expected_accidental_hits(4) == pytest.approx(expected)
    rng = np.random.default_rng(2)
    q, rounds = mixed(2).frequency.q, 20_000
    positives = rng.choice(5, p=q, size=(rounds, 4))
    in_batch = (positives[:, 1:] == positives[:, :1]).sum(axis=1)
    uniform = np.array([(mixed(2).sample(rng) == row[0]).sum() for row in positives])
    hits = in_batch + uniform
    assert abs(hits.mean() - expected) < 4.5 * hits.std() / math.sqrt(rounds)


# --- inclusion


@pytest.mark.parametrize("replacement", [False, True])
@pytest.mark.parametrize("snapshot", [None, [0, 2, 4]], ids=["whole corpus", "snapshot"])
def test_the_chance_to_be_drawn_at_all_is_pi(replacement: bool, snapshot: list[int] | None) -> None:
    rng = np.random.default_rng(8)
    indexed = None if snapshot is None else np.array(snapshot)
    negatives, batch, rounds = MixedNegatives(exact_frequency(COUNTS), 2, replacement, snapshot=indexed), 4, 20_000
    pi = np.exp(negatives.log_pi(np.arange(5), batch).astype(np.float64))
    others = rng.multinomial(batch - 1, negatives.frequency.q, size=rounds)
    drawn = np.stack([np.bincount(negatives.sample(rng), minlength=5) for _ in range(rounds)])
    share = (others + drawn > 0).mean(axis=0)
    assert (np.abs(share - pi) <= 4.5 * np.sqrt(pi * (1 - pi) / rounds)).all()


def test_pi_by_hand_with_and_without_replacement() -> None:
    # item 2: q = 2/11, B = 4, so the others miss it with (9/11)^3; two uniform draws of five miss it with (4/5)^2 or 3/5
    with_it, without = (math.exp(mixed(2, replacement=again).log_pi(np.array([2]), 4)[0]) for again in (True, False))
    assert with_it == pytest.approx(1 - (9 / 11) ** 3 * 0.64, rel=1e-6)
    assert without == pytest.approx(1 - (9 / 11) ** 3 * 0.6, rel=1e-6)


def test_pi_keeps_its_precision_for_an_item_of_a_billionth() -> None:
    counts = np.array([10**9, 1])
    pi = math.exp(MixedNegatives(exact_frequency(counts), 0).log_pi(np.array([1]), 3)[0])
    assert pi == pytest.approx(2e-9, rel=1e-5)


def test_what_is_drawn_for_certain_has_pi_one() -> None:
    assert mixed(5).log_pi(np.arange(5), 4).tolist() == [0.0] * 5  # the whole corpus without replacement
    only = MixedNegatives(exact_frequency(np.array([3, 0])), 1, True)
    assert only.log_pi(np.array([0]), 2).tolist() == [0.0]  # the one other positive cannot be another item
    assert math.exp(only.log_pi(np.array([0]), 1)[0]) == pytest.approx(1 / 2)  # no other positive: the uniform draw alone


# --- further streams


def test_a_snapshot_draws_its_own_items_alone_and_counts_only_them() -> None:
    negatives = MixedNegatives(exact_frequency(COUNTS), 2, snapshot=np.array([1, 3, 4]))
    rng = np.random.default_rng(1)
    drawn = np.concatenate([negatives.sample(rng) for _ in range(100)])
    assert set(drawn.tolist()) == {1, 3, 4}
    # B = 4: n = 3 q + 2/3 for the three, 3 q for the others
    expected = [3 * 5 / 11, 2 / 3, 3 * 2 / 11, 3 * 1 / 11 + 2 / 3, 3 * 3 / 11 + 2 / 3]
    np.testing.assert_allclose(np.exp(negatives.log_n(np.arange(5), 4)), expected, rtol=1e-6)


def test_a_snapshot_smaller_than_the_draws_is_drawn_whole() -> None:
    negatives = MixedNegatives(exact_frequency(COUNTS), 7, snapshot=np.array([1, 3, 4]))
    assert sorted(negatives.sample(np.random.default_rng(0)).tolist()) == [1, 3, 4]
    assert negatives.drawn == 3
    assert math.exp(negatives.log_n(np.array([1]), 4)[0]) == pytest.approx(1.0)


def test_index_draws_from_chosen_items_never_bring_another_which_has_no_count() -> None:
    negatives = make_negatives(exact_frequency(COUNTS), NegativeSettings(index_batch_size=3, index_from="chosen"))
    assert isinstance(negatives, MixedNegatives)
    rng = np.random.default_rng(1)
    assert {row for _ in range(50) for row in negatives.sample(rng).tolist()} == {0, 2, 3, 4}
    with pytest.raises(ValueError, match="item row 1 has 0 with B' = 3"):
        negatives.log_n(np.array([0, 1]), 4)


def test_queued_and_cached_columns_add_to_the_counts_the_draws_and_the_hits_by_hand() -> None:
    negatives = MixedNegatives(exact_frequency(COUNTS), 2, queued=6, cached=7)
    # B = 4, B' = 2, M = 5: n = (3 + 6) q + (2 + 7) / 5
    np.testing.assert_allclose(np.exp(negatives.log_n(np.arange(5), 4)), 9 * COUNTS / 11 + 9 / 5, rtol=1e-6)
    assert negatives.draws(4) == 3 + 6 + 2 + 7
    assert negatives.expected_accidental_hits(4) == pytest.approx(9 * 39 / 121 + 9 / 5)


def test_cached_draws_are_uniform_over_the_index_data_and_may_repeat() -> None:
    negatives = MixedNegatives(exact_frequency(COUNTS), 2, snapshot=np.array([1, 3, 4]), cached=30_000)
    counts = np.bincount(negatives.sample_cached(np.random.default_rng(2)), minlength=5)
    assert counts[[0, 2]].tolist() == [0, 0]
    assert (np.abs(counts[[1, 3, 4]] - 10_000) < 4.5 * math.sqrt(30_000 * (1 / 3) * (2 / 3))).all()


def test_counts_told_by_a_stream_replace_those_of_the_positives_alone() -> None:
    told = np.array([2.0, 0.5, 0.0])
    log_n = mixed(2).log_n(np.array([0, 1, 3]), 4, told)
    np.testing.assert_allclose(np.exp(log_n), told + 2 / 5, rtol=1e-6)


def test_an_item_chosen_before_the_window_weighs_as_one_that_was_chosen() -> None:
    frequency = ItemFrequency(np.array([0.5, 0.0, 0.0, 0.5]), ever=np.array([False, True, False, False]))
    negatives = MixedNegatives(frequency, 2, unchosen_weight=0.1)
    # B' / M = 2/4; only item 2 was never chosen at all
    np.testing.assert_allclose(np.exp(negatives.log_n(np.array([1, 2]), 4)), [0.5, 5.0], rtol=1e-6)
    np.testing.assert_allclose(np.exp(negatives.log_weight()), [1, 1, 0.1, 1], rtol=1e-6)


# --- sampled softmax


def test_proposals_by_hand() -> None:
    frequency = exact_frequency(COUNTS)  # 5, 0, 2, 1, 3
    assert proposal_shares(frequency, "uniform").tolist() == [0.25, 0, 0.25, 0.25, 0.25]
    np.testing.assert_allclose(proposal_shares(frequency, "unigram"), COUNTS / 11)
    # falling frequency: items 0, 4, 2, 3 at ranks 0..3 get log(2/1), log(3/2), log(4/3), log(5/4), over log 5
    logs = np.log([2 / 1, 1, 4 / 3, 5 / 4, 3 / 2]) / math.log(5)
    np.testing.assert_allclose(proposal_shares(frequency, "log_uniform"), logs)


@pytest.mark.parametrize("name", ["uniform", "unigram", "log_uniform"])
def test_a_proposal_adds_up_to_one_over_chosen_items_whatever_their_order(name: str) -> None:
    counts = np.array([3, 0, 9, 4, 1, 0, 7])
    order = np.array([4, 1, 6, 0, 5, 2, 3])
    shares = proposal_shares(exact_frequency(counts), name)
    assert shares.sum() == pytest.approx(1, abs=1e-12) and shares[[1, 5]].tolist() == [0, 0]
    np.testing.assert_allclose(proposal_shares(exact_frequency(counts[order]), name), shares[order])


def test_items_of_one_frequency_are_ranked_by_row() -> None:
    shares = proposal_shares(exact_frequency(np.array([2, 2, 2])), "log_uniform")
    np.testing.assert_allclose(shares, np.log([2, 3 / 2, 4 / 3]) / math.log(4))


@pytest.mark.parametrize("name", ["uniform", "unigram", "log_uniform"])
def test_the_share_of_draws_that_hold_an_item_is_its_pi(name: str) -> None:
    frequency, rounds = exact_frequency(COUNTS), 20_000
    negatives = SampledNegatives(frequency, proposal_shares(frequency, name), 3)
    rng, held, number = np.random.default_rng(4), np.zeros(5), 0
    for _ in range(rounds):
        rows = negatives.sample(rng)
        assert len(set(rows.tolist())) == len(rows)
        held[rows] += 1
        number += len(rows)
    chosen = np.array([0, 2, 3, 4])
    pi = np.exp(negatives.log_pi(chosen, 7).astype(np.float64))
    np.testing.assert_allclose(pi, 1 - (1 - negatives.proposal[chosen]) ** 3, rtol=1e-6)
    assert held[1] == 0
    assert (np.abs(held[chosen] / rounds - pi) < 4.5 * np.sqrt(pi * (1 - pi) / rounds)).all()
    assert number / rounds == pytest.approx(expected_distinct(negatives.proposal, 3), abs=0.03)


def test_an_item_that_is_never_proposed_is_not_drawn_however_the_shares_round() -> None:
    class Highest:
        def random(self, size: int) -> np.ndarray:
            return np.full(size, 1 - 2**-53)

    counts = np.append(np.ones(10, np.int64), 0)  # ten times 1/10 adds up to a little less than 1; the last item has no share
    negatives = SampledNegatives(exact_frequency(counts), np.append(np.full(10, 0.1 - 1e-16), 0.0), 2)
    assert negatives.sample(Highest()).tolist() == [9]  # type: ignore[arg-type]  # all of a generator that sampling asks for


def test_the_fewest_draws_that_bring_so_many_distinct_items() -> None:
    uniform = np.full(6, 1 / 6)
    # on average 1, 1.833, 2.528, 3.106 distinct of six: 6 (1 - (5/6)^t)
    assert [tries_for(uniform, distinct) for distinct in (1, 2, 3)] == [1, 3, 4]
    rng = np.random.default_rng(0)
    for _ in range(20):
        proposal = rng.dirichlet(np.full(37, 0.5))
        distinct = int(rng.integers(1, 18))
        tries = tries_for(proposal, distinct)
        assert expected_distinct(proposal, tries) >= distinct - 1e-9
        assert tries == 1 or expected_distinct(proposal, tries - 1) < distinct


def test_more_than_half_the_vocabulary_is_not_asked_for() -> None:
    proposal = np.array([0.25, 0, 0.25, 0.25, 0.25])
    assert tries_for(proposal, 100) == tries_for(proposal, 2) == 3  # 1, 1.75, 2.31 of four


def test_a_vocabulary_of_one_item_is_drawn_for_certain() -> None:
    frequency = exact_frequency(np.array([0, 4]))
    negatives = make_negatives(frequency, NegativeSettings(kind="sampled", index_batch_size=3))
    assert negatives.sample(np.random.default_rng(0)).tolist() == [1]
    assert negatives.log_pi(np.array([1]), 2).tolist() == [0.0]
    assert negatives.expected_accidental_hits(2) == 1.0


def test_sampled_negatives_hit_the_positive_as_often_as_expected() -> None:
    frequency = exact_frequency(COUNTS)
    negatives = SampledNegatives(frequency, proposal_shares(frequency, "log_uniform"), 3)
    rng, rounds = np.random.default_rng(6), 10_000
    hits = [int(rng.choice(5, p=frequency.q) in negatives.sample(rng)) for _ in range(rounds)]
    expected = negatives.expected_accidental_hits(7)
    assert abs(float(np.mean(hits)) - expected) < 4.5 * math.sqrt(expected * (1 - expected) / rounds)


# --- the whole corpus


@pytest.mark.parametrize("design", ["expected_count", "inclusion", "uncorrected"])
def test_the_loss_over_the_whole_corpus_is_the_full_softmax(design: str) -> None:
    queries, corpus = 3, 7
    negatives = WholeCorpus(exact_frequency(np.array([5, 0, 2, 1, 3, 0, 4])))
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(queries, corpus, generator=generator, dtype=torch.float64)
    positive = torch.tensor([4, 0, 4])  # twice the same item
    drawn = torch.from_numpy(negatives.sample(np.random.default_rng(0)))
    rows = torch.cat([positive, drawn])
    candidates = Candidates(
        rows,
        torch.from_numpy(negatives.log_n(rows.numpy(), queries)),
        torch.from_numpy(negatives.log_pi(rows.numpy(), queries)),
        negatives.draws(queries),
        negatives.in_batch,
    )
    loss = sampled_softmax_loss(design, logits[:, rows], candidates, temperature=1.0)  # type: ignore[arg-type]
    assert float(loss) == pytest.approx(float(full_softmax_loss(logits, positive)), rel=1e-6)
    assert negatives.draws(queries) == corpus - 1


# --- by name


def test_the_settings_name_the_design() -> None:
    frequency = exact_frequency(COUNTS)
    mixture = make_negatives(frequency, NegativeSettings(index_batch_size=2, cached=3, unchosen_weight=0.5))
    assert mixture == MixedNegatives(frequency, 2, False, 0.5, None, 0, 3)
    assert isinstance(make_negatives(frequency, NegativeSettings(kind="full")), WholeCorpus)
    sampled = make_negatives(frequency, NegativeSettings(kind="sampled", index_batch_size=2, proposal="unigram"))
    assert isinstance(sampled, SampledNegatives)
    assert sampled.tries == tries_for(frequency.q, 2) and not sampled.in_batch


@pytest.mark.parametrize("kind", ["mixed", "sampled", "full"])
def test_every_design_answers_in_float32_of_the_columns_length(kind: str) -> None:
    negatives = make_negatives(exact_frequency(COUNTS), NegativeSettings(kind=kind, index_batch_size=2))  # type: ignore[arg-type]
    rows = np.array([0, 2, 2, 4, 3, 0, 2])
    for values in (negatives.log_n(rows, 3), negatives.log_pi(rows, 3)):
        assert values.shape == (7,) and values.dtype == np.float32
        assert values[1] == values[2] == values[6] and values[0] == values[5]
    assert negatives.log_weight().shape == (5,)
    drawn = negatives.sample(np.random.default_rng(0))
    assert drawn.dtype == np.int64 and drawn.min() >= 0 and drawn.max() < 5


def test_an_unchosen_items_inclusion_carries_its_weight_and_a_chosen_ones_does_not() -> None:
    plain, weighed = mixed(2), MixedNegatives(exact_frequency(COUNTS), 2, unchosen_weight=0.25)
    difference = weighed.log_pi(np.arange(5), 4) - plain.log_pi(np.arange(5), 4)
    np.testing.assert_allclose(difference, [0, math.log(4), 0, 0, 0], atol=1e-6)  # item 1 was never chosen
