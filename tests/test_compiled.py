"""The compiled passes against torch, numpy and float64, and what happens where there is no compiler."""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_project import small_dataset
from torch.nn import functional

from shortlist import compiled
from shortlist.compiled import choose_passes, library
from shortlist.errors import ConfigError
from shortlist.features.arrays import Bag, Dense, Ids
from shortlist.kernels import Kernels, kernels
from shortlist.learner import Learner
from shortlist.local_rows import Features, Wanted, localise

ROWS, COLUMNS, PADDED = 11, 37, 41
FLOOR = 1e-6


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    choose_passes("auto")
    library()  # compiled once, and before any clock runs
    yield
    choose_passes("auto")


@pytest.fixture
def passes() -> Kernels:
    found = kernels()
    if found is None:
        pytest.skip("no C compiler with OpenMP here")
    return found


def softmax_of(passes: Kernels, cells: torch.Tensor, hidden: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
    """(loss, sums, and in float64: loss, gradient, sums) of one call; `cells` becomes the gradient."""
    generator = torch.Generator().manual_seed(1)
    shift, own_cell = torch.randn(COLUMNS, generator=generator), torch.randn(ROWS, generator=generator)
    own, share = torch.arange(ROWS) * 3, torch.rand(ROWS, generator=generator)
    shift[5] = -math.inf
    logits = cells[:, :COLUMNS].double() + shift.double()
    if hidden is not None:
        logits = logits.masked_fill(hidden, -math.inf)
    own_logit = cells[range(ROWS), own].double() + own_cell.double()
    logits[range(ROWS), own] = own_logit
    gradient = torch.softmax(logits, dim=1)
    gradient[range(ROWS), own] -= 1
    loss, sums = passes.softmax_gradient(cells, shift=shift, own=own, own_cell=own_cell, hidden=hidden, share=share)
    assert sums is not None
    return loss, sums, torch.logsumexp(logits, dim=1) - own_logit, gradient, gradient.T @ share.double()


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("is_masked", [False, True])
@pytest.mark.parametrize("spread", [1.0, 60.0])
def test_softmax_rows_are_those_of_float64(passes: Kernels, kind: torch.dtype, is_masked: bool, spread: float) -> None:
    cells = (spread * torch.randn(ROWS, PADDED, generator=torch.Generator().manual_seed(0))).to(kind)
    hidden = torch.rand(ROWS, COLUMNS, generator=torch.Generator().manual_seed(2)) < 0.3 if is_masked else None
    loss, sums, right_loss, gradient, right_sums = softmax_of(passes, cells, hidden)
    torch.testing.assert_close(loss.double(), right_loss, rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(sums.double(), right_sums, rtol=1e-5, atol=1e-6)
    rounding = 1e-6 * max(spread, 3.0) if kind == torch.float32 else 2**-8  # a logit of 200 is known to 1e-5
    torch.testing.assert_close(cells[:, :COLUMNS].double(), gradient, rtol=rounding, atol=1e-7)


def test_a_masked_column_and_the_padding_have_probability_zero(passes: Kernels) -> None:
    cells = torch.full((ROWS, PADDED), 3.0)
    softmax_of(passes, cells, None)
    assert (cells[:, 5] == 0).all() and (cells[:, COLUMNS:] == 0).all()


def test_a_logit_that_is_no_number_makes_the_loss_none(passes: Kernels) -> None:
    cells = torch.zeros(ROWS, PADDED)
    cells[2, 7] = math.nan
    loss = softmax_of(passes, cells, None)[0]
    assert torch.isnan(loss).tolist() == [row == 2 for row in range(ROWS)]


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_bias_and_relu_are_torchs_both_ways(passes: Kernels, kind: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(3)
    values, bias = torch.randn(1009, 67, generator=generator).to(kind), torch.randn(67, generator=generator)
    exact = (values.float() + bias).to(kind)
    linear, output = values.clone(), values.clone()
    passes.add_bias(linear, bias, cuts=False)
    passes.add_bias(output, bias, cuts=True)
    assert torch.equal(linear, exact) and torch.equal(output, functional.relu(exact))
    gradients = torch.randn(1009, 67, generator=generator).to(kind)
    expected = gradients * (exact > 0)
    sums = passes.relu_backward(gradients, output)
    assert torch.equal(gradients, expected)
    torch.testing.assert_close(sums, expected.double().sum(dim=0).float(), rtol=1e-5, atol=1e-4)
    whole = torch.randn(1009, 67, generator=generator).to(kind)
    kept = whole.clone()
    torch.testing.assert_close(passes.relu_backward(whole), kept.double().sum(dim=0).float(), rtol=1e-5, atol=1e-4)
    assert torch.equal(whole, kept)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("adds", [False, True])
def test_unit_lengths_are_autograds_the_shortest_vectors_included(passes: Kernels, kind: torch.dtype, adds: bool) -> None:
    """Of the first 13 rows of 17; the rest has a gradient of zeros."""
    generator = torch.Generator().manual_seed(4)
    values, addends = torch.randn(17, 7, generator=generator), torch.randn(13, 7, generator=generator)
    values[3], values[5] = 0.0, values[5] * 1e-9
    addends[3], addends[5] = 0.0, 0.0
    values = values.to(kind)
    leaf, weights = values.double().requires_grad_(), torch.randn(13, 7, generator=generator)
    total = leaf[:13] + addends if adds else leaf[:13]
    right = total / total.norm(dim=1, keepdim=True).clamp_min(FLOOR)
    (right * weights).sum().backward()  # type: ignore[no-untyped-call]
    units, lengths = passes.normalise(values, addends if adds else None, 13, FLOOR)
    torch.testing.assert_close(units.double(), right.detach(), rtol=1e-5, atol=1e-6)
    of_values = torch.full((17, 7), math.nan).to(kind)
    of_addends = passes.normalise_backward(weights, units, lengths, FLOOR, of_values=of_values, adds=adds)
    assert leaf.grad is not None
    rounding = 1e-5 if kind == torch.float32 else 2**-8
    torch.testing.assert_close(of_values.double(), leaf.grad, rtol=rounding, atol=1e-5)
    assert (of_addends is not None) == adds
    if of_addends is not None:
        torch.testing.assert_close(of_addends.double(), leaf.grad[:13], rtol=1e-5, atol=1e-5)


def test_adagrad_by_hand(passes: Kernels) -> None:
    """g = (3, -1), sums (1, 3) -> (10, 4); w = .5 w - .1 g / sqrt(sums): .5 - .3 / sqrt(10), 1 + .1 / 2."""
    weights, sums = torch.tensor([[9.0, 9.0], [1.0, 2.0]]), torch.tensor([[9.0, 9.0], [1.0, 3.0]])
    passes.adagrad_rows(weights, sums, torch.tensor([1]), torch.tensor([[3.0, -1.0]]), rate=0.1, kept=0.5)
    assert weights[1].tolist() == pytest.approx([0.5 - 0.3 / math.sqrt(10), 1.05])
    assert sums.tolist() == [[9.0, 9.0], [10.0, 4.0]] and weights[0].tolist() == [9.0, 9.0]


def test_rows_do_not_depend_on_the_number_of_threads(passes: Kernels) -> None:
    def cells_by(threads: int) -> torch.Tensor:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            cells = torch.randn(997, COLUMNS, generator=torch.Generator().manual_seed(6))
            own = torch.arange(997) % COLUMNS
            passes.softmax_gradient(cells, shift=torch.zeros(COLUMNS), own=own, own_cell=torch.zeros(997), hidden=None, share=None)
            return cells
        finally:
            torch.set_num_threads(before)

    assert torch.equal(cells_by(1), cells_by(2))


@pytest.mark.parametrize("shapes", [[(3, 5)], [(131, 173), (7,), (1,), (257, 64)], []])
def test_layers_move_as_torch_moves_them(shapes: list[tuple[int, ...]]) -> None:
    passes, generator = kernels(), torch.Generator().manual_seed(0)
    assert passes is not None
    weights = [torch.randn(shape, generator=generator) for shape in shapes]
    gradients = [torch.randn(shape, generator=generator) for shape in shapes]
    moved = [weight.clone().requires_grad_() for weight in weights]
    sums = [torch.full_like(weight, 0.5) for weight in weights]
    passes.adagrad(list(zip(weights, sums, gradients, strict=True)), rate=0.25)
    if not shapes:
        return
    optimizer = torch.optim.Adagrad(moved, lr=0.25, initial_accumulator_value=0.5, eps=0.0)
    for weight, gradient in zip(moved, gradients, strict=True):
        weight.grad = gradient
    optimizer.step()
    for weight, right, added in zip(weights, moved, sums, strict=True):
        torch.testing.assert_close(weight, right.detach(), rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(added, optimizer.state[right]["sum"], rtol=1e-6, atol=0)


# --- batches: the same bytes as numpy's

bags = st.lists(st.lists(st.integers(0, 28), min_size=1, max_size=6), min_size=1, max_size=11)


def bag_of(lists: list[list[int]]) -> Bag:
    values = np.array([value for one in lists for value in one], np.int32)
    offsets = np.cumsum([0, *map(len, lists)]).astype(np.int64)
    return Bag(values, offsets, np.arange(len(values), dtype=np.float32))


def same_features(found: Features, right: Features) -> None:
    assert list(found.columns) == list(right.columns)
    for name, column in right.columns.items():
        arrays = [*column.arrays().values(), *(right.transposed[name].arrays().values() if name in right.transposed else [])]
        other = [*found.columns[name].arrays().values(), *(found.transposed[name].arrays().values() if name in found.transposed else [])]
        if name in right.table_rows:
            arrays, other = [*arrays, right.table_rows[name]], [*other, found.table_rows[name]]
        assert [array.tolist() for array in other] == [array.tolist() for array in arrays]
        assert [array.dtype for array in other] == [array.dtype for array in arrays]


@settings(deadline=None)  # the first one may import what numpy's way needs
@given(bags, st.data(), st.booleans())
def test_features_are_localised_to_numpys_bytes(lists: list[list[int]], data: st.DataObject, shares_out: bool) -> None:
    bag, count = bag_of(lists), len(lists)
    ids = np.array(data.draw(st.lists(st.integers(0, 28), min_size=count, max_size=count)), np.int32)
    rows = data.draw(st.none() | st.lists(st.integers(-1, count - 1), max_size=13))
    rows = None if rows is None else np.array(rows, data.draw(st.sampled_from([np.int32, np.int64])))
    dense = Dense(np.arange(2 * count, dtype=np.float32).reshape(count, 2))
    shown = {} if rows is None else {"shown": Ids(np.arange(len(rows), dtype=np.int32) % 5)}
    columns = {"bag": bag, "dense": dense, "ids": Ids(ids), "shown": Ids(ids)}
    wanted = Wanted(columns, {"bag": (29, None), "ids": (31, 8), "shown": (29, None)}, rows, shown)
    choose_passes("auto")
    found = localise([wanted, Wanted({}, {}), Wanted({"bag": bag}, {"bag": (61, None)})], shares_out=shares_out)
    choose_passes("eager")
    right = localise([wanted, Wanted({}, {}), Wanted({"bag": bag}, {"bag": (61, None)})])
    for one, other in zip(found, right, strict=True):
        same_features(one, other)
    taken = bag if rows is None else bag.take(rows)
    assert right[0].table_rows["bag"][right[0].columns["bag"].arrays()["values"]].tolist() == taken.values.tolist()
    assert right[0].table_rows["bag"].tolist() == sorted(set(taken.values.tolist()))


def test_many_entries_are_localised_alike_by_any_number_of_threads() -> None:
    rng, count = np.random.default_rng(0), 1009
    offsets = np.concatenate([[0], np.cumsum(rng.integers(1, 40, count))]).astype(np.int64)
    bag = Bag(rng.integers(0, 5003, offsets[-1]).astype(np.int32), offsets, rng.random(offsets[-1], np.float32))
    rows = rng.integers(-1, count, 2003)
    wanted = [Wanted({"a": bag, "b": Ids(bag.values[:count])}, {"a": (5003, None), "b": (5003, None)}, rows)] * 3
    choose_passes("eager")
    right = localise(wanted)
    choose_passes("auto")
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        shared_out = localise(wanted, shares_out=True)
    finally:
        torch.set_num_threads(before)
    for found in (shared_out, localise(wanted)):
        for one, other in zip(found, right, strict=True):
            same_features(one, other)


@pytest.mark.parametrize("value", [-30, -1, 29])
@pytest.mark.parametrize("wanted", ["auto", "eager"])
def test_a_row_outside_its_table_is_refused(value: int, wanted: str) -> None:
    choose_passes(wanted)  # type: ignore[arg-type]
    for column in (Ids(np.array([3, value], np.int32)), bag_of([[3], [4, value]])):
        with pytest.raises(IndexError, match=rf"must be in \[0, 29\): got {min(3, value)} to"):
            localise([Wanted({"one": column}, {"one": (29, None)})])


def test_what_functions_are_said_to_take_is_what_they_take() -> None:
    """ctypes believes it: a size told as an int would be cut, an argument too few read from anywhere."""
    source = re.sub(r"/\*.*?\*/", "", Path(compiled.__file__).with_name("kernels.c").read_text(), flags=re.DOTALL)
    kinds = {"int64_t": "n", "float": "f", "int": "i"}
    declared = {}
    for name, arguments in re.findall(r"^(?:void|int|int64_t) (\w+)\(([^)]*)\) {", source, flags=re.MULTILINE):
        declared[name] = "".join("p" if "*" in argument else kinds[argument.split()[-2]] for argument in arguments.split(","))
    assert declared == compiled.ARGUMENTS


# --- with and without a compiler


@pytest.fixture
def built_anew() -> Iterator[None]:
    """What is built in a test stays there."""
    compiled._built.cache_clear()
    yield
    compiled._built.cache_clear()


@pytest.mark.usefixtures("built_anew")
def test_without_a_compiler_torch_works_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    choose_passes("auto")
    assert library() is None and kernels() is None


@pytest.mark.usefixtures("built_anew")
def test_asking_for_compiled_passes_without_a_compiler_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match=r'train.passes = "compiled" needs a C compiler with OpenMP: got neither gcc nor cc; install gcc'):
        choose_passes("compiled")


@pytest.mark.usefixtures("built_anew")
def test_a_compiler_that_fails_is_as_none_and_its_words_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_FLAGS", ("--no-such-flag",))
    if shutil.which("gcc") is None:
        pytest.skip("no gcc here")
    assert library() is None
    with pytest.raises(ConfigError, match="no-such-flag"):
        choose_passes("compiled")


def test_the_setting_chooses_for_the_process(tmp_path_factory: pytest.TempPathFactory) -> None:
    dataset, config = small_dataset(tmp_path_factory.mktemp("eager"), {"train": {"passes": "eager"}})
    Learner(dataset, dataset.train, config)
    assert library() is None
