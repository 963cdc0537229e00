"""Versions: swapped under load without a failed or mixed answer, refused when anything is wrong, rolled back, compacted."""

from __future__ import annotations

import gc
import json
import re
import shutil
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from serve_settings import quiet_settings

from shortlist import pace
from shortlist.errors import BundleError, NotFoundError, UnavailableError
from shortlist.export import publish_run
from shortlist.index.exact import ExactIndex
from shortlist.manifest import MANIFEST, published_facts, seal
from shortlist.run import Run
from shortlist.serve import loading
from shortlist.serve.answering import Pinned, Query, encoded
from shortlist.serve.live import Live
from shortlist.serve.loading import recall_of
from shortlist.serve.messages import Event, RecommendRequest, Slate
from shortlist.serve.query_path import NO_ROWS
from shortlist.serve.service import Service
from shortlist.serve.version import LiveVersion
from shortlist.store import current_version, set_current, versions

ALL = RecommendRequest(seed="i05", k=1000)
PREFIX = {"v000001": "i", "v000002": "j"}


def is_whole(slate: Slate) -> bool:
    return bool(slate.items) and not slate.degraded and {str(item)[0] for item in slate.items} == {PREFIX[slate.version]}


def test_a_published_version_is_served_after_a_reload_and_the_old_one_is_freed(store: Path, other_run: Run) -> None:
    service = Service.open(store, quiet_settings())
    old = weakref.ref(service._live.pinned.version)
    assert service.recommend(ALL).version == "v000001"
    publish_run(other_run, store)
    assert service.recommend(ALL).version == "v000001"
    reloaded = service.reload()
    assert (reloaded.version, reloaded.previous, reloaded.changed) == ("v000002", "v000001", True)
    assert is_whole(service.recommend(ALL)) and service.facts()["switches"] == 2
    gc.collect()
    deadline = time.monotonic() + 10
    while old() is not None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert old() is None
    again = service.reload()
    assert (again.version, again.changed) == ("v000002", False)
    service.close()


def test_swaps_under_load_give_no_failed_and_no_mixed_answer(both: Path) -> None:
    service = Service.open(both, quiet_settings())
    stop = threading.Event()
    requests = [
        RecommendRequest(user=5, k=17),
        RecommendRequest(seed="i05", history=["j01", "i02"], k=60),
        RecommendRequest(history=["j03"], k=3),
    ]

    def ask(number: int) -> list[Slate]:
        answers = []
        while not stop.is_set():
            if number % 2:
                batch = service.recommend_batch(requests)
                assert len({slate.version for slate in batch}) == 1
                answers += batch
            answers.append(service.recommend(requests[len(answers) % 3]))
        return answers

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask, number) for number in range(4)]
        try:
            for turn in range(12):
                set_current(both, f"v00000{turn % 2 + 1}")
                assert service.reload().changed
        finally:
            stop.set()
        answers = [slate for future in asking for slate in future.result()]
    assert {slate.version for slate in answers} == set(PREFIX) and len(answers) > 100
    assert [slate for slate in answers if not is_whole(slate)] == []
    service.close()


def test_a_query_vector_is_never_searched_in_another_version(both: Path) -> None:
    service = Service.open(both, quiet_settings())
    mine = service._live.pinned
    vector = encoded(mine, Query(NO_ROWS, NO_ROWS, NO_ROWS, -1, mine.version.path.read_context({}), 0))
    set_current(both, "v000001")
    service.reload()
    theirs = service._live.pinned
    with pytest.raises(AssertionError, match="in the version that made it"):
        theirs.version.search(vector, 3, theirs.admission.of(ALL.filters, NO_ROWS))
    service.close()


def wait_for(what: Any) -> None:
    deadline = time.monotonic() + 30
    while not what() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert what()


def damage(store: Path, name: str) -> None:
    path = store / "v000002" / name
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


@pytest.mark.parametrize("name", ["vectors.npy", "query_tower.onnx", "items.parquet", "manifest.json", "tables/0.npy"])
def test_a_damaged_version_is_refused_by_name_and_the_old_one_serves_on(both: Path, name: str) -> None:
    set_current(both, "v000001")
    service = Service.open(both, quiet_settings())
    before = service.recommend(ALL)
    set_current(both, "v000002")
    damage(both, name)
    with pytest.raises(UnavailableError, match=f"version v000002 was refused, v000001 serves on: .*{name.rpartition('/')[2]}"):
        service.reload()
    assert service.recommend(ALL) == before
    refused = service.facts()["problems"]["refused"]
    assert refused["version"] == "v000002" and name in refused["reason"]
    service.close()
    with pytest.raises(BundleError, match=name.rpartition("/")[2]):
        Service.open(both, quiet_settings())


def test_a_version_whose_index_misses_too_much_is_refused(both: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_current(both, "v000001")
    service = Service.open(both, quiet_settings(canary_k=10))
    set_current(both, "v000002")
    whole = ExactIndex.search_one

    def forgetful(self: ExactIndex, query: np.ndarray, k: int, **more: Any) -> Any:
        rows, scores = whole(self, query, k, **more)
        return np.where(np.arange(k) % 5 == 4, -1, rows), scores  # finds four of five

    monkeypatch.setattr(ExactIndex, "is_exact", False)
    monkeypatch.setattr(ExactIndex, "search_one", forgetful)
    with pytest.raises(UnavailableError, match=r"recall@10 of at least 0.93 against exact search: got 0.8000 over \d+ queries"):
        service.reload()
    assert service._live.pinned.version.name == "v000001"
    monkeypatch.undo()
    assert service.reload().changed and service.facts()["problems"]["refused"] is None and service.facts()["index_recall"] == 1.0
    service.close()


@pytest.mark.parametrize("name", ["queries.npy", "embeddings.npy"])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 5)])
def test_an_array_that_is_no_matrix_is_refused_by_name_though_its_hash_fits(both: Path, name: str, shape: tuple[int, ...]) -> None:
    folder = both / "v000002"
    np.save(folder / name, np.zeros(shape, np.float32))
    seal_anew(folder)
    with pytest.raises(BundleError, match=rf"{re.escape(name)} must be a matrix: got the shape {re.escape(str(shape))}"):
        loading.load_version(folder, quiet_settings(), ())


def test_a_version_that_lacks_a_table_is_refused_though_its_hashes_fit(both: Path) -> None:
    folder = both / "v000002"
    names = folder / "tables" / "arrays.json"
    names.write_bytes(names.read_bytes().replace(b"context/", b"kontext/", 1))
    seal_anew(folder)
    with pytest.raises(BundleError, match="v000002 must answer: KeyError"):
        loading.load_version(folder, quiet_settings(), ())


def seal_anew(folder: Path) -> None:
    facts = published_facts(folder)
    (folder / MANIFEST).unlink()
    seal(folder, facts)


def test_the_live_index_is_judged_again_while_it_serves(both: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_current(both, "v000001")
    whole = ExactIndex.search_one
    monkeypatch.setattr(ExactIndex, "is_exact", False)
    service = Service.open(both, quiet_settings(canary_k=10, canary_s=0.05))
    assert service.facts()["index_recall"] == 1.0 and service.facts()["problems"]["recall"] is None
    monkeypatch.setattr(
        ExactIndex, "search_one", lambda self, query, k, **more: (np.where(np.arange(k) < 7, whole(self, query, k, **more)[0], -1), None)
    )
    wait_for(lambda: service.facts()["index_recall_low"])
    facts = service.facts()
    assert facts["index_recall"] == 0.7 and facts["problems"]["recall"] == "recall@10 of the index is 0.7000"
    monkeypatch.setattr(ExactIndex, "search_one", whole)
    wait_for(lambda: not service.facts()["index_recall_low"])
    assert service.facts()["problems"]["canary"] is None
    service.close()


def test_closing_waits_for_no_rests_of_a_load(both: Path) -> None:
    set_current(both, "v000001")
    service = Service.open(both, quiet_settings(load_share=1e-6))
    set_current(both, "v000002")
    loading = threading.Thread(target=service.reload, daemon=True)
    loading.start()
    time.sleep(0.2)
    assert loading.is_alive() and service.recommend(ALL).version == "v000001"
    service._live.hurry()
    loading.join(20)
    assert not loading.is_alive() and service.recommend(ALL).version == "v000002"
    service.close()


def test_a_load_rests_while_requests_wait(both: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "MOST_RESTS", 10**9)
    set_current(both, "v000001")
    service = Service.open(both, quiet_settings(load_share=0.9))
    try:
        pressed = threading.Event()
        pressed.set()
        looks = list[int]()

        def is_pressed() -> bool:
            looks.append(1)
            return pressed.is_set()

        service.yield_to(is_pressed)
        set_current(both, "v000002")
        loading = threading.Thread(target=service.reload, daemon=True)
        loading.start()
        loading.join(0.5)
        assert loading.is_alive() and looks and service.recommend(ALL).version == "v000001"
        pressed.clear()
        loading.join(20)
        assert not loading.is_alive() and service.recommend(ALL).version == "v000002"
    finally:
        service.close()


def test_recall_is_the_share_of_the_exact_top_k(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    version = service._live.pinned.version
    whole = ExactIndex.search_one
    monkeypatch.setattr(ExactIndex, "is_exact", False)
    monkeypatch.setattr(ExactIndex, "search_one", lambda self, query, k: (np.where(np.arange(k) < 3, whole(self, query, k)[0], -1), None))
    assert recall_of(version, version.vectors[:23].copy(), 4) == 0.75


def test_a_tower_of_another_version_is_refused_even_with_fitting_hashes(store: Path, run: Run) -> None:
    with pytest.raises(UnavailableError, match="must come from its own item tower"):
        service = Service.open(store, quiet_settings())
        try:
            foreign = replace(run, tables={name: table + 0.5 for name, table in run.tables.items()})
            folder = publish_run(foreign, store).folder
            # a publisher that mixes: the vectors of one run with the tables of another, sealed anew
            mixed = shutil.copytree(folder, store.parent / "mixed")
            for name in ("vectors.npy", "embeddings.npy"):
                shutil.copyfile(store / "v000001" / name, mixed / name)
            (mixed / "manifest.json").unlink()
            from shortlist.store import publish_version

            publish_version(
                store,
                lambda target: shutil.copytree(mixed, target, dirs_exist_ok=True),  # type: ignore[arg-type,return-value]
                facts=service._live.pinned.version.bundle.facts,
            )
            service.reload()
        finally:
            service.close()


def test_any_fault_of_loading_refuses_and_names_itself(both: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_current(both, "v000001")
    service = Service.open(both, quiet_settings())
    set_current(both, "v000002")

    def out_of_memory(*_: Any) -> Any:
        raise MemoryError("8 TB")

    monkeypatch.setattr(loading, "_touch", out_of_memory)
    with pytest.raises(UnavailableError, match=r"v000002 was refused, v000001 serves on: .* must answer: MemoryError: 8 TB"):
        service.reload()
    assert service.recommend(ALL).version == "v000001"
    service.close()


def test_a_watcher_follows_current_and_refuses_a_bad_version_once(both: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_current(both, "v000001")
    service = Service.open(both, quiet_settings(watch_s=0.02))
    loads = []
    whole = loading.open_version
    monkeypatch.setattr(loading, "open_version", lambda folder, **more: (loads.append(folder.name), whole(folder, **more))[1])

    set_current(both, "v000002")
    wait_for(lambda: service.recommend(ALL).version == "v000002")
    set_current(both, "v000001")
    wait_for(lambda: service.recommend(ALL).version == "v000001")
    damage(both, "vectors.npy")
    (both / "CURRENT").write_text("v000002\n")  # set_current would refuse it
    wait_for(lambda: service.facts()["problems"]["refused"])
    count = len(loads)
    time.sleep(0.3)
    assert len(loads) == count and service.recommend(ALL).version == "v000001"
    service.close()


def test_a_rollback_makes_the_version_before_live_and_current(both: Path) -> None:
    service = Service.open(both, quiet_settings())
    reloaded = service.rollback()
    assert (reloaded.version, reloaded.previous, reloaded.changed) == ("v000001", "v000002", True)
    assert current_version(both).name == "v000001" and is_whole(service.recommend(ALL))
    with pytest.raises(NotFoundError, match="no version older than v000001"):
        service.rollback()
    service.close()


def test_a_rollback_to_a_damaged_version_leaves_current_where_it_was(both: Path) -> None:
    service = Service.open(both, quiet_settings())
    (both / "v000001" / "vectors.npy").write_bytes(b"short")
    with pytest.raises(UnavailableError, match=r"v000001 was refused, v000002 serves on: .*vectors\.npy"):
        service.rollback()
    assert current_version(both).name == "v000002" == service.recommend(ALL).version
    service.close()


OAK = {"item_id": "new oak", "kind": "kind 0", "tags": ["tag 1"], "title": "oak number5", "price": 1.5, "look": [0.5, 0.0, 1.0]}


def test_writes_are_there_again_in_a_new_version_by_its_own_tower(store: Path, other_run: Run) -> None:
    service = Service.open(store, quiet_settings())
    service.put_items([OAK])
    service.delete_items(["j03", "i01"])
    before = service._live.pinned.overlay.vectors.shape
    publish_run(other_run, store)
    service.reload()
    slate = service.recommend(RecommendRequest(k=1000))
    words = service._live.pinned.version.bundle.item_encoder.content
    assert words is not None and words.width == 17  # as many as two items or more of the small project have
    assert before == (1, 12 + 17) and service._live.pinned.overlay.vectors.shape == (1, 14 + 17)
    assert "new oak" in slate.items and "j03" not in slate.items and len(slate.items) == 53
    service.close()


def test_writes_that_a_version_has_no_place_for_are_counted(store: Path, run: Run) -> None:
    service = Service.open(store, quiet_settings())
    service.put_items([OAK, {"item_id": "plain"}])
    service._live._journal.append(
        service._live._position, json.dumps({"ids": [7, "odd"], "rows": [{}, {"price": "x", "colour": 1}]}).encode(), 10**6
    )
    service._live._journal.append(
        service._live._journal.read_from(0)[1], json.dumps({"ids": ["good"], "rows": [{"price": 2, "colour": 1}]}).encode(), 10**6
    )
    assert service.item("good")["price"] == 2.0
    assert service.facts()["left_out_items"] == 2 and service.facts()["overlay_items"] == 3
    service.close()


def test_no_write_is_lost_while_versions_are_swapped(both: Path) -> None:
    service = Service.open(both, quiet_settings())
    stop = threading.Event()

    def write() -> int:
        count = 0
        while not stop.is_set():
            service.put_items([{"item_id": f"n{count:04d}"}])
            assert f"n{count:04d}" in service._live.pinned.overlay.slots
            count += 1
        return count

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        try:
            for turn in range(6):
                set_current(both, f"v00000{turn % 2 + 1}")
                service.reload()
        finally:
            stop.set()
        count = writing.result()
    assert len(service._live.pinned.overlay) == count > 3
    service.close()
    again = Service.open(both, quiet_settings())
    assert len(again._live.pinned.overlay) == count
    again.close()


def test_a_version_is_live_with_all_that_was_acknowledged_meanwhile(both: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request takes what is live without a lock, so what is live must hold the write from the first moment on."""
    service = Service.open(both, quiet_settings())
    seen: list[Pinned] = []
    replay = Live._replay

    def then_written(live: Live, version: LiveVersion, start: int) -> tuple[Pinned, int, int]:
        found = replay(live, version, start)
        service.put_items([{"item_id": "late"}])  # acknowledged by the old version before the new one is live
        return found

    class Watched(Live):
        def __setattr__(self, name: str, value: object) -> None:
            if name == "_pinned":
                seen.append(cast(Pinned, value))
            super().__setattr__(name, value)

    monkeypatch.setattr(Live, "_replay", then_written)
    service._live.__class__ = Watched
    set_current(both, "v000001")
    assert service.reload().changed
    assert [pinned.version.name for pinned in seen] == ["v000002", "v000001"]
    assert all("late" in pinned.overlay.slots for pinned in seen)
    service.close()


def changed(service: Service) -> None:
    """A new item, a changed one and two withdrawn."""
    service.put_items([OAK, {**OAK, "item_id": "aa first"}, {**OAK, "item_id": "i07"}])
    service.delete_items(["i08", "i00"])


def test_a_compacted_version_answers_as_overlay_and_sealed_index_did(store: Path) -> None:
    service = Service.open(store, quiet_settings())
    changed(service)
    service.record_events([Event(user=5, item="new oak")])
    requests = [ALL, RecommendRequest(k=1000), RecommendRequest(user=5, k=1000), RecommendRequest(history=["aa first", "i07"], k=1000)]
    before = [service.recommend(request) for request in requests]
    compacted = service.compact()
    assert (compacted.version, compacted.previous, compacted.changed) == ("v000002", "v000001", True)
    after = [service.recommend(request) for request in requests]
    for one, two in zip(before, after, strict=True):
        assert one.items == two.items and set(two.sources) == {"learned"} and one.version != two.version
        np.testing.assert_allclose(one.scores, two.scores, atol=1e-6)
    facts = service.facts()
    assert (facts["items"], facts["overlay_items"], facts["tombstones"], facts["journal_bytes"]) == (53, 0, 0, 0)
    assert service.item("i07")["title"] == OAK["title"]
    again = service.compact()
    assert (again.version, again.changed) == ("v000002", False)
    service.close()


def test_a_compacted_store_is_opened_without_its_journal_being_read_twice(store: Path) -> None:
    service = Service.open(store, quiet_settings())
    changed(service)
    service.compact()
    service.put_items([{**OAK, "item_id": "later"}])
    service.close()
    again = Service.open(store, quiet_settings())
    assert (again.facts()["overlay_items"], again.facts()["tombstones"]) == (1, 0)
    assert {"later", "new oak"} <= set(again.recommend(ALL).items)
    again.close()


def test_a_rollback_over_a_compaction_loses_no_write(store: Path) -> None:
    service = Service.open(store, quiet_settings())
    changed(service)
    service.compact()
    service.put_items([{**OAK, "item_id": "later"}])
    before = service.recommend(ALL)
    assert service.rollback().version == "v000001"
    after = service.recommend(ALL)
    assert after.items == before.items
    np.testing.assert_allclose(after.scores, before.scores, atol=1e-6)
    service.close()


def test_the_journal_is_cut_to_what_the_kept_versions_need(store: Path) -> None:
    service = Service.open(store, quiet_settings(keep_versions=2))
    sizes = []
    for turn in range(4):
        service.put_items([{**OAK, "item_id": f"turn {turn}"}])
        service.compact()
        sizes.append((store / "journal").stat().st_size)
    assert versions(store) == ["v000004", "v000005"]
    frame = (sizes[0] - 28) // 1
    assert sizes == [28 + frame, 28 + frame, 28 + frame, 28 + frame]  # what v000004 does not hold: one write
    assert service.rollback().version == "v000004"
    assert {f"turn {turn}" for turn in range(4)} <= set(service.recommend(ALL).items)
    service.close()


def test_another_process_follows_a_compaction_and_a_cut_journal(store: Path) -> None:
    one, two = Service.open(store, quiet_settings(keep_versions=1)), Service.open(store, quiet_settings(keep_versions=1))
    changed(one)
    assert two.recommend(ALL).items == one.recommend(ALL).items
    one.compact()
    assert two.recommend(ALL).items == one.recommend(ALL).items and two.recommend(ALL).version == "v000001"
    one.put_items([{**OAK, "item_id": "later"}])
    assert "later" in two.recommend(ALL).items
    two.put_items([{**OAK, "item_id": "latest"}])
    assert two.reload().version == "v000002"
    assert two.recommend(ALL).items == one.recommend(ALL).items and {"later", "latest"} <= set(one.recommend(ALL).items)
    one.close()
    two.close()


def test_a_process_that_slept_through_a_cut_says_so_and_finds_its_way(store: Path) -> None:
    one, two = Service.open(store, quiet_settings(keep_versions=1)), Service.open(store, quiet_settings(keep_versions=1))
    changed(one)
    one.compact()  # two has seen neither the writes nor the cut
    assert two.recommend(ALL).version == "v000001"
    assert "read it anew" in two.facts()["problems"]["journal"]
    with pytest.raises(UnavailableError, match="items cannot be written"):
        two.put_items([OAK])
    two._live.watch_once()
    assert two.facts()["problems"]["journal"] is None and two.recommend(ALL).items == one.recommend(ALL).items
    two.put_items([{**OAK, "item_id": "later"}])
    one.close()
    two.close()


def test_a_version_that_was_published_meanwhile_is_not_overtaken_by_a_compaction(store: Path, other_run: Run) -> None:
    service = Service.open(store, quiet_settings())
    changed(service)
    publish_run(other_run, store)
    with pytest.raises(UnavailableError, match="the live version must be v000001, which is being compacted: got v000002"):
        service.compact()
    assert current_version(store).name == "v000002" and service.recommend(ALL).version == "v000001"
    service.close()


def test_everything_withdrawn_cannot_be_compacted_into_an_empty_version(store: Path) -> None:
    service = Service.open(store, quiet_settings())
    service.delete_items([f"i{row:02d}" for row in range(53)])
    assert service.recommend(ALL).items == []
    with pytest.raises(UnavailableError, match="at least one item: all of v000001 were withdrawn"):
        service.compact()
    assert service.recommend(ALL).items == [] and current_version(store).name == "v000001"
    service.close()
