"""Filters inside retrieval: what may come back is what a plain loop over the table lets through, and k come while k are eligible."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shortlist.errors import BadRequestError
from shortlist.index.contract import Eligible
from shortlist.serve.messages import Filters, Predicate, RecommendRequest, SimilarRequest
from shortlist.serve.predicates import PredicateMasks, holding
from shortlist.serve.service import Service

FRAME = pl.DataFrame(
    {
        "text": ["a", "b", None, "c", "a", ""],
        "list": [["x", "y"], [], None, ["y", None], ["z"], ["x"]],
        "whole": [1, 2, None, -3, 2**62, 0],
        "real": [0.5, -1.0, None, 2.0, 1e300, 0.0],
        "flag": [True, False, None, True, False, True],
        "day": [dt.date(1970, 1, 2), dt.date(2020, 1, 1), None, dt.date(1969, 12, 31), dt.date(2020, 1, 1), dt.date(1970, 1, 1)],
        "kind": pl.Series(["p", "q", None, "p", "q", "q"], dtype=pl.Categorical),
        "short": pl.Series([[1, 2], [3, 4], None, [5, 6], [1, 9], [0, 0]], dtype=pl.Array(pl.Int32, 2)),
    },
    schema_overrides={"list": pl.List(pl.String)},
)


@pytest.mark.parametrize(
    ("predicate", "rows"),
    [
        (Predicate(column="text", any_of=["a", "zzz"]), [0, 4]),
        (Predicate(column="text", none_of=["a"]), [1, 3, 5]),
        (Predicate(column="list", any_of=["y"]), [0, 3]),
        (Predicate(column="list", none_of=["y"]), [1, 4, 5]),
        (Predicate(column="whole", any_of=[2, 2**62, 10**30]), [1, 4]),
        (Predicate(column="whole", at_least=0.0, at_most=2.0), [0, 1, 5]),
        (Predicate(column="real", any_of=[2, 0.5, 10**400]), [0, 3]),
        (Predicate(column="real", at_most=0.0), [1, 5]),
        (Predicate(column="real", none_of=[0.0], at_least=-1.0), [0, 1, 3, 4]),
        (Predicate(column="flag", any_of=[True]), [0, 3, 5]),
        (Predicate(column="day", at_least=86_400.0), [0, 1, 4]),
        (Predicate(column="day", at_most=-1.0), [3]),
        (Predicate(column="kind", any_of=["p"]), [0, 3]),
        (Predicate(column="short", any_of=[1]), [0, 4]),
    ],
)
def test_a_predicate_holds_where_its_words_say_and_never_for_a_missing_value(predicate: Predicate, rows: list[int]) -> None:
    assert np.flatnonzero(holding(FRAME, [predicate])).tolist() == rows


def test_all_predicates_must_hold() -> None:
    where = [Predicate(column="text", any_of=["a", "b"]), Predicate(column="flag", any_of=[False])]
    assert np.flatnonzero(holding(FRAME, where)).tolist() == [1, 4]


@pytest.mark.parametrize(
    ("predicate", "said"),
    [
        (Predicate(column="txt", any_of=["a"]), "must name a column of the items table, day, flag, kind, .*: got 'txt'"),
        (Predicate(column="text"), "must ask something"),
        (Predicate(column="text", any_of=[1]), "values for column 'text' must be strings.*: got int"),
        (Predicate(column="text", any_of=["a", 1.5]), "must be strings.*: got float, str"),
        (Predicate(column="whole", any_of=[1.0]), "must be integers.*: got float"),
        (Predicate(column="whole", any_of=[True]), "must be integers.*: got bool"),
        (Predicate(column="flag", none_of=[1]), "must be true or false.*: got int"),
        (Predicate(column="list", any_of=[1]), "must be strings.*: got int"),
        (Predicate(column="text", at_least=1.0), "must hold numbers or times for at_least and at_most: it holds String"),
        (Predicate(column="list", at_most=1.0), "must hold numbers or times"),
        (Predicate(column="day", any_of=["2020-01-01"]), "cannot be compared with single values: use at_least and at_most"),
    ],
)
def test_a_predicate_that_does_not_fit_the_table_is_refused(predicate: Predicate, said: str) -> None:
    with pytest.raises(BadRequestError, match=said):
        holding(FRAME, [predicate])


def test_masks_are_kept_within_their_room_the_least_used_given_up() -> None:
    made = []

    def make(mask: np.ndarray) -> np.ndarray:
        made.append(mask)
        return mask

    questions = [[Predicate(column="whole", at_least=float(number))] for number in range(4)]
    masks = PredicateMasks(FRAME, 100, make=make, size_bytes=lambda mask: mask.nbytes)  # room for two of 6 + 36 bytes
    for number in (0, 1, 0, 2, 0, 3, 0):
        masks.of(questions[number])
    assert len(made) == 4  # 0 was used all the time
    masks.of(questions[1])
    assert len(made) == 5
    small = PredicateMasks(FRAME, 1, make=make, size_bytes=lambda mask: mask.nbytes)
    assert small.of(questions[0]).sum() == 4 and small.of(questions[0]).sum() == 4


def expected(service: Service, request: RecommendRequest, allowed: set[Any]) -> list[Any]:
    """What is left of the whole ranking."""
    everything = service.recommend(RecommendRequest(user=request.user, seed=request.seed, history=request.history, k=1000))
    return [item for item in everything.items if item in allowed][: request.k]


IDS = [f"i{row:02d}" for row in range(53)]
SOME = st.lists(st.sampled_from([*IDS, "no such item", "new 1", "new 2"]), max_size=60)


@pytest.fixture(scope="module")
def filled(published: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    import shutil

    from serve_settings import quiet_settings

    store = shutil.copytree(published, tmp_path_factory.mktemp("filters") / "store")
    service = Service.open(store, quiet_settings())
    service.put_items([{"item_id": f"new {row}", "kind": f"kind {row}", "price": float(row), "tags": ["tag 1"]} for row in range(3)])
    service.put_items([{"item_id": "i04", "kind": "kind 1", "price": 2.0}])
    service.delete_items(["i08", "new 0"])
    yield service
    service.close()


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    allow=st.none() | SOME,
    deny=SOME,
    kinds=st.none() | st.lists(st.sampled_from([f"kind {row}" for row in range(6)]), min_size=1, max_size=3),
    tag=st.none() | st.sampled_from(["tag 1", "tag 7", "no such tag"]),
    price=st.none() | st.floats(0, 4),
    exclude_seen=st.booleans(),
    k=st.sampled_from([1, 5, 60]),
)
def test_any_filters_leave_what_a_plain_loop_leaves_in_the_same_order(
    filled: Service, allow: list[str] | None, deny: list[str], kinds: list[str] | None, tag: str | None, price: float | None,
    exclude_seen: bool, k: int,
) -> None:  # fmt: skip
    where = [Predicate(column="kind", any_of=kinds)] if kinds else []
    where += [Predicate(column="tags", any_of=[tag])] if tag else []
    where += [] if price is None else [Predicate(column="price", at_least=price)]
    filters = Filters(allow=allow, deny=deny, where=where, exclude_seen=exclude_seen)
    request = RecommendRequest(seed="i05", history=["i01", "new 1", "i01"], k=k, filters=filters)
    left = {
        row["item_id"]
        for item in {*IDS, "new 1", "new 2"} - {"i08"}
        if (row := filled.item(item))
        and (allow is None or item in allow)
        and item not in deny
        and (not kinds or row["kind"] in kinds)
        and (not tag or tag in (row["tags"] or []))
        and (price is None or (row["price"] is not None and row["price"] >= price))
        and not (exclude_seen and item in ("i05", "i01", "new 1"))
    }
    assert filled.recommend(request).items == expected(filled, request, left)


def test_seen_items_are_left_out_also_when_they_come_from_a_known_user(service: Service) -> None:
    history = service._live.pinned.version.histories
    assert history is not None
    known = {f"i{row:02d}" for row in history.of(5)}
    slate = service.recommend(RecommendRequest(user=5, k=1000, filters=Filters(exclude_seen=True)))
    assert known and set(slate.items) == set(IDS) - known


def test_ids_of_another_type_are_refused_wherever_they_stand(service: Service) -> None:
    for request in (
        RecommendRequest(seed=5),
        RecommendRequest(history=["i01", 5]),
        RecommendRequest(filters=Filters(allow=[5])),
        RecommendRequest(filters=Filters(deny=[5])),
    ):
        with pytest.raises(BadRequestError, match="ids of items must be of the version's type, a string: got int"):
            service.recommend(request)
    with pytest.raises(BadRequestError, match="ids of users must be of the version's type, an integer: got str") as refused:
        service.recommend(RecommendRequest(user="alice"))
    assert "alice" not in str(refused.value)
    with pytest.raises(BadRequestError):
        service.similar(SimilarRequest(item=5))


def test_a_filter_that_nothing_passes_gives_an_empty_slate(service: Service) -> None:
    slate = service.recommend(RecommendRequest(filters=Filters(allow=[])))
    assert (slate.items, slate.scores, slate.sources, slate.degraded) == ([], [], [], [])


def test_an_attribute_is_prepared_once_a_version(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    index = service._live.pinned.version.bundle.index
    prepared: list[Eligible] = []
    request = RecommendRequest(filters=Filters(where=[Predicate(column="kind", any_of=["kind 1"])]))
    first = service.recommend(request)
    monkeypatch.setattr(type(index), "prepare", lambda self, mask: prepared.append(mask))
    assert service.recommend(request).items == first.items and prepared == []


def test_similar_items_are_found_by_content_without_popularity(service: Service) -> None:
    version = service._live.pinned.version
    dim = version.bundle.dim
    code = version.embeddings[10, dim:-1]
    assert code.any()  # it is asked like a query that shows it: its own code, not what it counts as an answer
    asked = np.concatenate([version.vectors[10, :dim], [0.0], code / np.linalg.norm(code)])  # no popularity
    scores = version.vectors @ asked
    order = np.argsort(-scores, kind="stable")
    slate = service.similar(SimilarRequest(item="i10", k=9))
    assert slate.items == [f"i{row:02d}" for row in order if row != 10][:9]
    assert slate.scores == pytest.approx([float(scores[row]) for row in order if row != 10][:9], abs=1e-6)
