"""Approximate indexes at approximate settings: what still holds, and what their files refuse."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from small_index import needs, same, some_of

from shortlist.errors import BundleError
from shortlist.index import engines, proposing
from shortlist.index.exact import ExactIndex
from shortlist.index.faiss import FaissIndex
from shortlist.index.proposing import Effort, ProposingIndex, default_effort
from shortlist.index.scann import ScannIndex, tree_and_codes
from shortlist.sections import IndexSettings

SIZE, DIM, K = 5003, 17, 20
APPROXIMATE: list[Any] = [
    pytest.param(ScannIndex, id="scann", marks=needs("scann")),
    pytest.param(FaissIndex, id="faiss", marks=needs("faiss")),
]
every_kind = pytest.mark.parametrize("kind", APPROXIMATE)


def clustered(size: int = SIZE, dim: int = DIM, seed: int = 1) -> np.ndarray:
    """Vectors around 41 centres with unequal norms."""
    random = np.random.default_rng(seed)
    points = random.standard_normal((41, dim))[random.integers(41, size=size)] + 0.4 * random.standard_normal((size, dim))
    return (points * np.exp(0.25 * random.standard_normal((size, 1)))).astype(np.float32)


QUERIES = clustered(31, seed=2)


def settings_of(kind: type[ProposingIndex], **changes: Any) -> IndexSettings:
    return msgspec.structs.replace(IndexSettings(kind=kind.kind, leaves=67, target_k=K, build_threads=1), **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def built() -> dict[type[ProposingIndex], ProposingIndex]:
    """Each kind once, with efforts of 20, 80 and 320 results."""
    efforts = [Effort(20, 12, 60), Effort(80, 20, 200), Effort(320, 40, 700)]
    indexes: dict[type[ProposingIndex], ProposingIndex] = {}
    for kind, engine in ((ScannIndex, "scann"), (FaissIndex, "faiss")):
        if engines.is_installed(engine):
            indexes[kind] = kind.build(clustered(), settings_of(kind)).with_efforts(efforts)
    return indexes


def recall(found: np.ndarray, true: np.ndarray) -> float:
    return float(np.mean([len(np.intersect1d(a, b)) / len(b) for a, b in zip(found, true, strict=True)]))


@every_kind
def test_what_is_found_has_canonical_scores_in_order(kind: type[ProposingIndex], built: dict[Any, ProposingIndex]) -> None:
    index = built[kind]
    rows, scores = index.search(QUERIES, K)
    assert not index.is_exact and (rows >= 0).all()
    exact = index.exact.search(QUERIES, SIZE)
    for line, found in enumerate(rows):
        assert len(set(found.tolist())) == K
        place = np.argsort(exact[0][line])[found]  # where the exact ranking has these rows
        assert (np.diff(place) > 0).all()
        assert scores[line].tobytes() == exact[1][line][place].tobytes()
    assert recall(rows, exact[0][:, :K]) > 0.8


@every_kind
def test_more_effort_finds_more_and_all_of_it_finds_everything(kind: type[ProposingIndex], built: dict[Any, ProposingIndex]) -> None:
    true, scores = built[kind].exact.search(QUERIES, K)
    recalls = [recall(built[kind].with_efforts([Effort(K, searched, 5 * K)]).search(QUERIES, K)[0], true) for searched in (1, 5, 30)]
    assert recalls == sorted(recalls) and recalls[0] < recalls[2]
    everywhere = built[kind].with_efforts([Effort(SIZE, built[kind].leaves, SIZE)])
    assert everywhere.is_exact and same(everywhere.search(QUERIES, K), (true, scores))


@every_kind
@pytest.mark.parametrize("share", [0.5, 0.26, 0.24, 0.1, 0.01, 0.001, 0.0002])
def test_k_eligible_rows_come_back_at_every_selectivity(kind: type[ProposingIndex], built: dict[Any, ProposingIndex], share: float) -> None:
    count = round(share * SIZE)
    mask = some_of(SIZE, count)
    for k in (1, K, 97):
        rows, scores = built[kind].search(QUERIES, k, eligible=mask)
        assert ((rows >= 0).sum(axis=1) == min(k, count)).all() and np.isneginf(scores[rows < 0]).all()
        assert mask[rows[rows >= 0]].all()
        true, _ = built[kind].exact.search(QUERIES, k, eligible=mask)
        assert recall(rows[:, : min(k, count)], true[:, : min(k, count)]) > 0.8


@every_kind
def test_eligible_rows_that_lie_far_from_the_query_are_found_all_the_same(
    kind: type[ProposingIndex], built: dict[Any, ProposingIndex]
) -> None:
    """The worst filter: half of the corpus, and just the half that no partition near the query holds."""
    index, query = built[kind], QUERIES[:1]
    ranking, _ = index.exact.search(query, SIZE)
    mask = np.zeros(SIZE, bool)
    mask[ranking[0, SIZE // 2 :]] = True
    assert same(index.search(query, K, eligible=mask), index.exact.search(query, K, eligible=mask))


def noted_proposals(index: ProposingIndex, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int]]:
    """Grows with every question to the library: (partitions looked into, rows asked for, rows proposed)."""
    tried: list[tuple[int, int, int]] = []
    propose = index.propose

    def noted(query: np.ndarray, effort: Effort, searched: int) -> np.ndarray:
        rows = propose(query, effort, searched)
        tried.append((searched, effort.handed, len(rows)))
        return rows

    monkeypatch.setattr(index, "propose", noted)
    return tried


@every_kind
def test_a_short_answer_looks_into_twice_as_many_partitions_before_the_next_effort(
    kind: type[ProposingIndex], built: dict[Any, ProposingIndex], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A partition holds 75 rows on average, so for 100 of them one is mostly too few, and forty are far too many."""
    index = built[kind].with_efforts([Effort(100, 1, 150), Effort(320, 40, 700)])
    tried = noted_proposals(index, monkeypatch)
    longest = 0
    for query in QUERIES:
        tried.clear()
        assert (index.search_one(query, 100)[0] >= 0).all()
        assert [searched for searched, _, _ in tried] == [1, 2, 4, 8, 16][: len(tried)]
        assert all(count == 150 for _, count, _ in tried)
        assert all(found < 100 for _, _, found in tried[:-1]) and tried[-1][2] >= 100
        longest = max(longest, len(tried))
    assert longest > 1  # at least one query needed it


@every_kind
def test_where_more_partitions_cannot_help_the_next_effort_is_taken(
    kind: type[ProposingIndex], built: dict[Any, ProposingIndex], monkeypatch: pytest.MonkeyPatch
) -> None:
    index = built[kind].with_efforts([Effort(100, 12, 100), Effort(320, 40, 700)])
    tried = noted_proposals(index, monkeypatch)
    best, _ = index.exact.search(QUERIES[:1], 30)
    assert (index.search_one(QUERIES[0], 60, exclude=best[0])[0] >= 0).all()  # 100 proposed of which some 30 are left out: enough
    assert [searched for searched, _, _ in tried] == [12]
    tried.clear()
    mask = np.ones(SIZE, bool)  # without the best 60, of 100 proposed too few are left, and twice 12 partitions would propose 100 as well
    mask[index.exact.search(QUERIES[:1], 60)[0][0]] = False
    assert (index.search_one(QUERIES[0], 60, eligible=mask)[0] >= 0).all()
    assert [(searched, count) for searched, count, _ in tried] == [
        (12, 100),
        (40, 700),
    ]


@every_kind
@pytest.mark.parametrize("count", [5, 50, 300, 4000, SIZE - 7, SIZE])
def test_long_exclusions_of_the_best_rows_leave_no_short_list(
    kind: type[ProposingIndex], built: dict[Any, ProposingIndex], count: int
) -> None:
    index = built[kind]
    best, _ = index.exact.search(QUERIES, count)
    exclude = [np.concatenate([line, line[:3], [-1, SIZE + 5]]) for line in best]
    rows, _ = index.search(QUERIES, K, exclude=exclude)
    true, _ = index.exact.search(QUERIES, K, exclude=exclude)
    assert ((rows >= 0).sum(axis=1) == min(K, SIZE - count)).all()
    assert not any(np.isin(line, out).any() for line, out in zip(rows[rows >= 0].reshape(len(rows), -1), best, strict=True))
    there = min(K, SIZE - count)
    assert there == 0 or recall(rows[:, :there], true[:, :there]) > 0.8


@every_kind
def test_batch_mates_and_order_change_nothing(kind: type[ProposingIndex], built: dict[Any, ProposingIndex]) -> None:
    index, mask = built[kind], some_of(SIZE, SIZE // 3)
    exclude = [np.arange(number * 11) for number in range(len(QUERIES))]
    rows, scores = index.search(QUERIES, K, exclude=exclude, eligible=mask)
    for number in reversed(range(len(QUERIES))):
        alone = index.search_one(QUERIES[number], K, exclude=exclude[number], eligible=mask)
        assert same(alone, (rows[number], scores[number]))


@every_kind
def test_scaling_a_query_and_permuting_the_items_changes_little(kind: type[ProposingIndex], built: dict[Any, ProposingIndex]) -> None:
    index = built[kind]
    true, _ = index.exact.search(QUERIES, K)
    usual = recall(index.search(QUERIES, K)[0], true)
    assert abs(recall(index.search(QUERIES * np.float32(8), K)[0], true) - usual) <= 0.01
    order = np.random.default_rng(5).permutation(SIZE)
    other = kind.build(clustered()[order], settings_of(kind)).with_efforts(index.efforts)
    assert abs(recall(order[other.search(QUERIES, K)[0]], true) - usual) <= 0.05


@every_kind
def test_the_same_seed_builds_the_same_bytes(kind: type[ProposingIndex], tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        kind.build(clustered(), settings_of(kind)).save(tmp_path / name)
    files = [
        sorted(path.relative_to(tmp_path / name) for path in (tmp_path / name).rglob("*") if path.is_file()) for name in ("one", "two")
    ]
    assert files[0] == files[1] and len(files[0]) >= 2
    for path in files[0]:
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes(), path


@every_kind
def test_an_opened_index_answers_as_before_and_holds_no_vectors_on_disk(
    kind: type[ProposingIndex], built: dict[Any, ProposingIndex], tmp_path: Path
) -> None:
    built[kind].save(tmp_path)
    opened = kind.open(tmp_path, clustered())
    assert same(opened.search(QUERIES, 97), built[kind].search(QUERIES, 97)) and opened.efforts == built[kind].efforts
    size = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert size < clustered().nbytes / 2
    (tmp_path / "again").mkdir()
    opened.save(tmp_path / "again")  # what was opened can be published again
    assert same(kind.open(tmp_path / "again", clustered()).search(QUERIES, K), opened.search(QUERIES, K))


@every_kind
def test_damaged_files_are_refused_by_name(kind: type[ProposingIndex], built: dict[Any, ProposingIndex], tmp_path: Path) -> None:
    built[kind].save(tmp_path)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    for path in files:
        content = path.read_bytes()
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 0x10]) + content[middle + 1 :]
        for damaged in (b"", content[:middle], content[:-1], content + b"x", flipped if path.suffix != ".json" else b"{}"):
            path.write_bytes(damaged)
            with pytest.raises(BundleError, match=path.name.replace(".", r"\.")):
                kind.open(tmp_path, clustered())
        path.unlink()
        with pytest.raises(BundleError, match=path.name.replace(".", r"\.")):
            kind.open(tmp_path, clustered())
        path.write_bytes(content)
    assert kind.open(tmp_path, clustered()).size == SIZE


@every_kind
def test_a_pickle_beside_the_index_is_refused(kind: type[ProposingIndex], built: dict[Any, ProposingIndex], tmp_path: Path) -> None:
    built[kind].save(tmp_path)
    (tmp_path / kind.folder / "scann_docids.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(BundleError, match=r"scann_docids\.pkl must not be there"):
        kind.open(tmp_path, clustered())


@every_kind
@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("kind", "exact", "describe its vectors"),
        ("size", SIZE + 1, "describe its vectors"),
        ("leaves", 1, "searched <= 1"),
        ("leaves", 68, "67 partitions|leaves"),
        ("efforts", [], "at least one effort"),
        ("efforts", [{"depth": 0, "searched": 1, "rescored": 3}], "depth <= compared <= rescored"),
        ("efforts", [{"depth": 1, "searched": 1, "rescored": 2**40}], "depth <= compared <= rescored"),
        ("efforts", [{"depth": 2, "searched": 1, "rescored": 3, "compared": 1}], "depth <= compared <= rescored"),
        ("efforts", [{"depth": 2, "searched": 1, "rescored": 3, "compared": 4}], "depth <= compared <= rescored"),
        ("files", {"../../x": "0"}, "x is missing"),
        ("more", 1, "unknown field"),
    ],
)
def test_facts_that_do_not_fit_are_refused(
    kind: type[ProposingIndex], built: dict[Any, ProposingIndex], tmp_path: Path, field: str, value: object, message: str
) -> None:
    if (field, value, kind) == ("leaves", 68, ScannIndex):
        pytest.skip("ScaNN does not say how many partitions it holds; the manifest's hash does")
    built[kind].save(tmp_path)
    path = tmp_path / f"{kind.kind}.json"
    path.write_bytes(msgspec.json.encode({**msgspec.json.decode(path.read_bytes()), field: value}))
    with pytest.raises(BundleError, match=message):
        kind.open(tmp_path, clustered())


@every_kind
def test_vectors_of_any_length_and_zeros_can_be_indexed(kind: type[ProposingIndex]) -> None:
    for vectors in (clustered() * np.float32(1e15), clustered() * np.float32(1e-15), np.zeros((300, 6), np.float32), clustered(300, 1)):
        index = kind.build(vectors, settings_of(kind, leaves=7))
        queries = clustered(5, vectors.shape[1], seed=9)
        rows, _ = index.search(queries, K)
        assert (rows >= 0).all()
        assert not vectors.any() or recall(rows, index.exact.search(queries, K)[0]) > 0.3  # one partition of seven


@every_kind
def test_eligible_rows_are_compared_where_that_is_cheaper_than_searching_past_the_others(
    kind: type[ProposingIndex], built: dict[Any, ProposingIndex], monkeypatch: pytest.MonkeyPatch
) -> None:
    index = built[kind]
    # 20 results among 1,000 of 5,003 rows: 20 (1 + 1.3 * 4.003) = 124.1 deep, so 40 partitions and 700 rows:
    # 40 * 100 + 40 / 67 * 5003 * 17 / 2 * .03 + 700 * (10 + 1.7 * 17) = 31,992 ns, and 700 * (45 + .17 * 17) = 33,523 where they are
    # ordered by finer codes; comparing takes 1000 * 17 * .25 = 4,250
    ordered = 33_523 if kind is ScannIndex else 0
    assert index.search_ns(Effort(320, 40, 700)) == pytest.approx(31_992 + ordered, rel=1e-4)
    if kind is ScannIndex:  # which of these 700 hands over 416: 4,762 + 33,523 + 416 * 38.9
        assert index.search_ns(Effort(320, 40, 700, 416)) == pytest.approx(54_467, rel=1e-4)
    assert index.prepare(some_of(SIZE, 1000)).gathered is not None
    assert index.prepare(some_of(SIZE, 1251)).gathered is None  # more than a quarter
    monkeypatch.setattr(proposing, "GATHERED_DIM_NS", (31_992 + ordered) / (950 * 17))  # as dear for 950 rows
    assert index.prepare(some_of(SIZE, 1000)).gathered is None
    assert index.prepare(some_of(SIZE, 900)).gathered is not None
    monkeypatch.setattr(proposing, "GATHERED_DIM_NS", 1e6)
    assert index.prepare(some_of(SIZE, 400)).gathered is None  # 319.2 deep
    assert index.prepare(some_of(SIZE, 390)).gathered is not None  # 327.5: deeper than any effort is good for


def test_copies_of_eligible_rows_stay_small(monkeypatch: pytest.MonkeyPatch, built: dict[Any, ProposingIndex]) -> None:
    monkeypatch.setattr(proposing, "GATHERED_LARGEST_BYTES", 100 * 17 * 4)
    for index in built.values():
        assert index.prepare(some_of(SIZE, 100)).gathered is not None and index.prepare(some_of(SIZE, 101)).gathered is None


def test_efforts_are_bounded_by_the_corpus() -> None:
    assert default_effort(1000, 10, IndexSettings(target_k=100)) == Effort(100, 1, 300)
    assert default_effort(150, 10, IndexSettings(target_k=100)) == Effort(100, 1, 150)
    assert default_effort(50, 0, IndexSettings(target_k=100)) == Effort(50, 0, 50)
    assert default_effort(1000, 10, IndexSettings(kind="scann", target_k=5, searched=99, rescored=70)) == Effort(70, 10, 70)


@pytest.mark.parametrize("kind", [ScannIndex, FaissIndex])
def test_a_missing_library_is_named_with_its_extra(kind: type[ProposingIndex], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, kind.kind, None)  # importing it raises ImportError
    with pytest.raises(BundleError, match=rf"needs {kind.kind}.*pip install 'shortlist\[ann\]'"):
        kind.build(clustered(), settings_of(kind))


@needs("scann")
def test_a_build_leaves_the_terminal_alone() -> None:
    """ScaNN writes its progress past Python's standard error."""
    code = """
import numpy as np
from shortlist.sections import IndexSettings
from shortlist.index.scann import ScannIndex
vectors = np.random.default_rng(1).standard_normal((300, 8)).astype(np.float32)
ScannIndex.build(vectors, IndexSettings(kind="scann")).search_one(vectors[0], 3)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_the_exact_index_of_an_approximate_one_is_over_the_same_vectors(built: dict[Any, ProposingIndex]) -> None:
    for index in built.values():
        assert isinstance(index.exact, ExactIndex) and np.shares_memory(index.exact.vectors, index._vectors)


@needs("scann")
def test_scann_hands_over_the_best_by_codes_of_8_bits_and_keeps_no_vectors(tmp_path: Path) -> None:
    """Of 400 rows that its small codes name, the 26 by its finer ones hold nearly all of the best 20; the first 26 do not."""
    index = ScannIndex.build(clustered(), settings_of(ScannIndex))
    true, _ = index.exact.search(QUERIES, K)
    named, finer, first = Effort(K, 67, 400), Effort(K, 67, 400, 26), Effort(K, 67, 26)
    for query in QUERIES:
        handed = index.propose(query, finer, 67)
        assert len(handed) == 26 and set(handed) <= set(index.propose(query, named, 67))
        scores = index.exact.vectors[handed] @ query
        assert np.corrcoef(np.argsort(np.argsort(-scores)), np.arange(26))[0, 1] > 0.9  # the likeliest first
    found = recall(index.with_efforts([finer]).search(QUERIES, K)[0], true)
    assert found > recall(index.with_efforts([first]).search(QUERIES, K)[0], true) + 0.02
    assert found >= recall(index.with_efforts([named]).search(QUERIES, K)[0], true) - 0.01
    index.save(tmp_path)
    assert (tmp_path / "scann" / "int8_dataset.npy").exists() and not (tmp_path / "scann" / "dataset.npy").exists()
    assert ScannIndex.open(tmp_path, clustered()).has_finer_codes


@needs("scann")
def test_efforts_that_are_set_by_hand_need_no_finer_codes(tmp_path: Path) -> None:
    index = ScannIndex.build(clustered(), settings_of(ScannIndex, searched=12, rescored=60))
    assert not index.has_finer_codes and index.search_ns(index.efforts[0]) < replaced(index).search_ns(index.efforts[0])
    index.save(tmp_path)
    assert not (tmp_path / "scann" / "int8_dataset.npy").exists() and not ScannIndex.open(tmp_path, clustered()).has_finer_codes


def replaced(index: ProposingIndex) -> ProposingIndex:
    """The same index as if it had finer codes."""
    other = index.with_efforts(index.efforts)
    other.has_finer_codes = True
    return other


@needs("scann")
def test_an_index_from_before_it_had_finer_codes_is_searched_as_it_was(tmp_path: Path) -> None:
    """Such a version hands over all that it names, and its facts say nothing of rows compared."""
    index = ScannIndex(clustered(), leaves=67, efforts=[Effort(20, 12, 60), Effort(SIZE, 67, SIZE)])
    with engines.unheard():
        index.library = tree_and_codes(index.exact.vectors, 67, threads=1).build()
    index.save(tmp_path)
    facts = msgspec.json.decode((tmp_path / "scann.json").read_bytes())
    facts["efforts"] = [{name: effort[name] for name in ("depth", "searched", "rescored")} for effort in facts["efforts"]]
    (tmp_path / "scann.json").write_bytes(msgspec.json.encode(facts))
    opened = ScannIndex.open(tmp_path, clustered())
    assert not opened.has_finer_codes  # and no search is said to take the time of ordering by them
    true = opened.exact.search(QUERIES, K)
    assert recall(opened.search(QUERIES, K)[0], true[0]) > 0.8
    assert same(opened.with_efforts([Effort(SIZE, 67, SIZE)]).search(QUERIES, K), true)
