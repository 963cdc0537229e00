"""Items put and withdrawn: retrieved at once or no more, by all processes, after a restart, over another version; bounded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from serve_settings import quiet_settings

from shortlist.errors import BadRequestError, BundleError, NotFoundError, UnavailableError
from shortlist.serve.messages import Filters, Predicate, RecommendRequest, SimilarRequest
from shortlist.serve.service import Service
from shortlist.serve.writes import Write, folded

OAK: dict[str, Any] = {
    "item_id": "new oak",
    "kind": "kind 0",
    "tags": ["tag 1"],
    "title": "oak number5",
    "price": 1.5,
    "look": [0.5, 0.0, 1.0],
}
ALL = RecommendRequest(seed="i05", k=1000)


def test_a_new_item_is_retrieved_by_the_next_request_as_an_item_of_its_content_would_be(service: Service) -> None:
    accepted = service.put_items([OAK])
    assert (accepted.accepted, accepted.version) == (1, "v000001")
    slate = service.recommend(ALL)
    assert len(slate.items) == 54 and slate.scores == sorted(slate.scores, reverse=True)
    place = slate.items.index("new oak")
    assert slate.sources[place] == "fresh" and set(slate.sources[:place] + slate.sources[place + 1 :]) == {"learned"}
    bundle = service._live.pinned.version.bundle
    _, vector = bundle.encode_items(pl.DataFrame([OAK], schema=bundle.items.frame.schema))
    query = service._live.pinned.version
    asked = query.path.vector(query.embeddings[5], query.embeddings[:0], -1, query.path.read_context({}))
    assert slate.scores[place] == pytest.approx(float(asked[0] @ vector[0]), abs=1e-5)
    assert service.item("new oak") == OAK


def test_a_column_that_is_not_named_is_missing(service: Service) -> None:
    service.put_items([{"item_id": "bare"}])
    assert service.item("bare") == {"item_id": "bare", "kind": None, "tags": None, "title": None, "price": None, "look": None}


def test_a_changed_item_is_there_once_as_it_is_now(service: Service) -> None:
    before = service.recommend(ALL)
    service.put_items([{**OAK, "item_id": "i07"}])
    slate = service.recommend(ALL)
    assert sorted(slate.items) == sorted(before.items)
    assert slate.sources[slate.items.index("i07")] == "fresh"
    assert service.item("i07")["title"] == "oak number5"
    service.put_items([{**OAK, "item_id": "i07", "title": "again"}])
    assert service.recommend(ALL).items.count("i07") == 1 and service.item("i07")["title"] == "again"
    assert service.facts()["overlay_items"] == 1


def test_a_withdrawn_item_is_retrieved_by_no_source(service: Service) -> None:
    service.put_items([OAK, {**OAK, "item_id": "other"}])
    service.delete_items(["new oak", "i05", "no such item"])
    for request in (ALL, RecommendRequest(k=1000), RecommendRequest(k=1000, filters=Filters(allow=["i05", "new oak", "i06"]))):
        assert not {"new oak", "i05"} & set(service.recommend(request).items)
    assert "i05" not in service.similar(SimilarRequest(item="i10", k=1000)).items
    service._answering.learned._failed_in_a_row, service._answering.learned._resting_until = 99, np.inf
    popular = service.recommend(RecommendRequest(k=1000))
    assert set(popular.sources) == {"popular", "fresh"} and not {"new oak", "i05"} & set(popular.items) and len(popular.items) == 53
    for gone in ("i05", "new oak"):
        with pytest.raises(NotFoundError, match="unknown or was withdrawn"):
            service.item(gone)
        with pytest.raises(NotFoundError):
            service.similar(SimilarRequest(item=gone))


def test_what_was_withdrawn_can_be_put_back(service: Service) -> None:
    service.delete_items(["i05"])
    service.put_items([{**OAK, "item_id": "i05"}])
    assert service.item("i05")["kind"] == "kind 0" and "i05" in service.recommend(ALL).items


def test_new_items_can_be_looked_at_and_remembered(service: Service) -> None:
    unknown = service.recommend(RecommendRequest(seed="new oak", history=["new oak", "i01"]))
    assert unknown.unknown == 2
    service.put_items([OAK])
    known = service.recommend(RecommendRequest(seed="new oak", history=["new oak", "i01"]))
    assert known.unknown == 0 and known.scores != unknown.scores
    assert "new oak" not in service.recommend(RecommendRequest(seed="new oak", k=1000, filters=Filters(exclude_seen=True))).items
    assert "new oak" not in service.similar(SimilarRequest(item="new oak", k=1000)).items


def test_filters_hold_for_new_items(service: Service) -> None:
    service.put_items([OAK, {**OAK, "item_id": "dear oak", "price": 99.0}])
    dear = Filters(where=[Predicate(column="price", at_least=50.0)])
    assert service.recommend(RecommendRequest(filters=dear)).items == ["dear oak"]
    assert service.recommend(RecommendRequest(filters=Filters(allow=["new oak"]))).items == ["new oak"]
    assert "new oak" not in service.recommend(RecommendRequest(k=1000, filters=Filters(deny=["new oak"]))).items


def test_a_restart_forgets_no_write(store: Path) -> None:
    first = Service.open(store, quiet_settings())
    first.put_items([OAK])
    first.put_items([{**OAK, "item_id": "i07"}, {**OAK, "item_id": "gone"}])
    first.delete_items(["gone", "i09"])
    before = first.recommend(ALL)
    first.close()
    second = Service.open(store, quiet_settings())
    after = second.recommend(ALL)
    assert (after.items, after.sources) == (before.items, before.sources)
    np.testing.assert_allclose(after.scores, before.scores, atol=1e-6)
    second.close()


def test_what_one_process_writes_the_next_request_of_another_sees(store: Path) -> None:
    one, two = Service.open(store, quiet_settings()), Service.open(store, quiet_settings())
    one.put_items([OAK])
    assert two.item("new oak") == OAK
    two.delete_items(["new oak", "i03"])
    two.put_items([{**OAK, "item_id": "late"}])
    slates = [service.recommend(ALL) for service in (one, two)]
    assert slates[0].items == slates[1].items and "late" in slates[0].items and not {"new oak", "i03"} & set(slates[0].items)
    one.close()
    two.close()


def test_an_overlay_is_bounded_and_says_so(store: Path) -> None:
    service = Service.open(store, quiet_settings(overlay_items=2))
    service.put_items([OAK, {**OAK, "item_id": "second"}])
    with pytest.raises(UnavailableError, match="at most 2 new and changed items can wait for compaction"):
        service.put_items([{**OAK, "item_id": "third"}])
    service.put_items([{**OAK, "price": 3.0}])  # a change needs no room
    service.delete_items(["second"])
    service.put_items([{**OAK, "item_id": "third"}])
    assert service.facts()["overlay_items"] == 2
    service.close()


def test_a_journal_is_bounded_and_says_so(store: Path) -> None:
    service = Service.open(store, quiet_settings(journal_bytes=400))
    with pytest.raises(UnavailableError, match="journal must stay below 400 bytes: compact"):
        for _ in range(10):
            service.put_items([OAK])
    assert service.item("new oak") == OAK
    service.close()


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"kind": "kind 1"}], "must have an id in 'item_id': got none in row 1"),
        ([{"item_id": 7}], "ids of items must be of the version's type, a string: got int"),
        ([{"item_id": ["a"]}], "ids of items must be of the version's type, a string: got list"),
        ([OAK, OAK], "one is named twice"),
        ([{**OAK, "knd": "x"}], "an item has the columns item_id, kind, tags, title, price, look: got 'knd'"),
        ([{**OAK, "price": "dear"}], "column 'price' of an item must be Float64: got 'dear'"),
        ([{**OAK, "price": True}], "column 'price' of an item must be Float64"),
        ([{**OAK, "price": float("nan")}], "finite numbers"),
        ([{**OAK, "tags": "abc"}], "column 'tags' of an item must be List"),
        ([{**OAK, "look": [1.0]}], "a vector must have 3 numbers"),
        ([{**OAK, "look": [1.0, float("inf"), 0.0]}], "finite numbers"),
        ([{**OAK, "look": [1e38, 1e38, 1e38]}], "must have a finite vector"),
        ([{**OAK, "kind": 3}], "column 'kind' of an item must be String"),
    ],
)
def test_rows_that_do_not_fit_are_refused_and_leave_no_trace(service: Service, rows: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(BadRequestError, match=said):
        service.put_items([{**OAK, "item_id": "before"}, *rows] if len(rows) == 1 and rows[0].get("item_id") else rows)
    assert service.facts()["overlay_items"] == 0 and service.facts()["journal_bytes"] == 0


def test_withdrawals_by_ids_of_another_type_are_refused(service: Service) -> None:
    with pytest.raises(BadRequestError, match="a string: got int"):
        service.delete_items([7])


def test_of_an_item_only_the_last_write_counts() -> None:
    writes = [
        Write(["a", "b"], [{"x": 1}, {"x": 2}]),
        Write(["a", "c"]),
        Write(["c"], [{"x": 3}]),
        Write(["b"], [{"x": 4}]),
    ]
    assert folded(writes) == ({"c": {"x": 3}, "b": {"x": 4}}, ["a"])


def test_a_store_that_cannot_be_written_to_is_served_without_writes(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from shortlist.serve import service as module

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(module, "Journal", refuse)
    service = Service.open(store, quiet_settings())
    assert len(service.recommend(ALL).items) == 53
    with pytest.raises(UnavailableError, match="cannot be written to from here"):
        service.put_items([OAK])
    service.close()


def test_a_damaged_journal_is_not_served_over(store: Path) -> None:
    service = Service.open(store, quiet_settings())
    service.put_items([OAK])
    service.put_items([{**OAK, "item_id": "second"}])
    service.close()
    raw = bytearray((store / "journal").read_bytes())
    raw[60] ^= 1
    (store / "journal").write_bytes(raw)
    with pytest.raises(BundleError, match="journal is damaged at byte 28"):
        Service.open(store, quiet_settings())


def test_a_write_that_the_tower_breaks_on_leaves_requests_what_they_had(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    from shortlist.serve import live

    service.put_items([OAK])
    before = service.recommend(ALL)

    def breaks(*_: Any) -> Any:
        raise RuntimeError("a planted fault")

    with monkeypatch.context() as patched:
        patched.setattr(live, "applied", breaks)
        patched.setattr(live, "replayed", breaks)
        with pytest.raises(UnavailableError, match="the write is on disk and not live here: RuntimeError: a planted fault"):
            service.put_items([{**OAK, "item_id": "second"}])
        assert service.recommend(ALL) == before and service.facts()["journal_faulty"]
    service._live.watch_once()
    assert "second" in service.recommend(ALL).items and not service.facts()["journal_faulty"]
