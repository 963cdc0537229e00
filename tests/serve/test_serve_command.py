"""`shortlist serve` as users start it: a real store, a real process, the client on the other side."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from load.server_process import ServerProcess, running, serve_store

from shortlist.serve.client import Client, RefusedError
from shortlist.serve.messages import Event, Filters, Predicate

KEYS = {"SHORTLIST_WRITE_KEY": "write-key-0123456789", "SHORTLIST_ADMIN_KEY": "admin-key-0123456789"}


@pytest.fixture
def server(store: Path) -> Iterator[ServerProcess]:
    with running(serve_store(store), environment=KEYS) as started:
        yield started


def refused(*arguments: str) -> str:
    """What `shortlist serve` says instead of serving."""
    done = subprocess.run([sys.executable, "-m", "shortlist", "serve", *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    return done.stderr


def test_queries_events_and_items_work_together_over_http(server: ServerProcess) -> None:
    url = "http://{}:{}".format(*server.address)
    with Client(url, key=KEYS["SHORTLIST_WRITE_KEY"]) as client:
        slate = client.recommend(user=4711, k=53)
        assert len(slate.items) == 53 and slate.degraded == [] and slate.scores == sorted(slate.scores, reverse=True)
        client.record_events([Event(user=4711, item="i07"), Event(user=4711, item="i12")])
        seen = client.recommend(user=4711, k=53, filters=Filters(exclude_seen=True)).items
        assert set(slate.items) - set(seen) == {"i07", "i12"}
        client.put_items([{"item_id": "new", "kind": "kind 2", "price": 3.5, "title": "beech number7"}])
        found = client.recommend(k=60, filters=Filters(where=[Predicate(column="price", at_least=3.5, at_most=3.5)]))
        assert found.items == ["new"] and found.sources == ["fresh"]
        assert client.item("new")["title"] == "beech number7"
        client.delete_items(["new", "i07"])
        assert {"new", "i07"} & set(client.recommend(k=60).items) == set()
        assert client.forget_user(4711) == 2
        with pytest.raises(RefusedError, match="a key for admin is needed: got one for write"):
            client.reload()
    with Client(url, key=KEYS["SHORTLIST_ADMIN_KEY"]) as admin:
        assert admin.reload().changed is False
    status, metrics = server.ask("GET", "/metrics")
    assert status == 200 and b'shortlist_info{version="v000001"' in metrics and b'sources_calls{name="learned"}' in metrics


def test_an_address_that_others_reach_needs_keys(store: Path) -> None:
    said = refused(str(store), "--host", "0.0.0.0", "--port", "0")
    assert "without SHORTLIST_WRITE_KEY and SHORTLIST_ADMIN_KEY; set them, or bind to 127.0.0.1" in said


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_folder_that_is_no_store_is_refused_with_its_name(tmp_path: Path, workers: str) -> None:
    assert str(tmp_path) in refused(str(tmp_path), "--port", "0", "--workers", workers)
