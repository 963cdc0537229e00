"""The named variants change what they name and nothing else."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from small_project import small_config

from shortlist.sections import Config
from shortlist.study.table1 import table1
from shortlist.study.table2 import INDEX_BATCH_SIZES, pairs_of_sum, table2
from shortlist.study.variants import COLD, DESIGNS, LARGEST_FULL_SOFTMAX, NAMED, changed, named_study


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder: Path = tmp_path_factory.mktemp("config")
    return small_config(folder)


def test_a_variant_changes_what_it_names_and_nothing_else(config: Config) -> None:
    found = changed(config, DESIGNS["uncorrected"])
    assert found.loss.design == "uncorrected"
    assert (
        found.model == msgspec.structs.replace(config.model, popularity="learned")
        and found.negatives == config.negatives
        and found.train == msgspec.structs.replace(config.train, calibrate=False)
    )
    assert changed(config, COLD["weight .3"]).negatives.unchosen_weight == 0.3


@pytest.mark.parametrize("name", NAMED)
def test_the_reference_of_a_named_study_is_one_of_its_variants(name: str) -> None:
    study = named_study(name, 10)
    assert study.reference in study.variants and study.left_out == {}


def test_the_full_softmax_is_left_out_where_the_corpus_is_too_large() -> None:
    study = named_study("designs", LARGEST_FULL_SOFTMAX + 1)
    assert list(study.left_out) == ["full softmax"] and "20,001 items" in study.left_out["full softmax"]
    assert "full softmax" not in study.variants and len(study.variants) == len(DESIGNS) - 1


def test_every_variant_of_table_1_has_an_effective_sample_of_2048(config: Config) -> None:
    for name, changes in table1().variants.items():
        negatives = changed(config, changes).negatives
        in_batch = negatives.batch_size if negatives.kind == "mixed" else 0
        assert in_batch + negatives.index_batch_size == 2048, name


def test_table_2_goes_over_the_papers_sizes_at_fixed_batch_and_over_shares_of_a_sum(config: Config) -> None:
    study = table2(20_000)
    assert study.left_out == {} and study.reference == "B = 1024, B' = 1024"
    sizes = [(v.negatives.batch_size, v.negatives.index_batch_size) for v in (changed(config, c) for c in study.variants.values())]
    assert sizes[:7] == [(1024, size) for size in (0, 1024, 2048, 4096, 8192, 12_000, 16_384)]
    assert sizes[7:] == [(2048, 0), (1536, 512), (512, 1536), (256, 1792)]  # (1024, 1024) stands there already
    assert all(sum(pair) == 2048 for pair in pairs_of_sum(2048))


def test_table_2_leaves_out_what_the_corpus_cannot_give_and_says_why() -> None:
    study = table2(4096)
    left = [f"B = 1024, B' = {size}" for size in INDEX_BATCH_SIZES if size > 4096]
    assert list(study.left_out) == left and not set(left) & set(study.variants)
    assert study.left_out[left[0]] == "B' = 8,192 distinct items cannot be drawn from a corpus of 4,096"
    tiny = table2(10)
    assert tiny.reference == "B = 1024, B' = 0"
