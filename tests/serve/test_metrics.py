"""Metrics: numbers by hand, one text for all workers, readable by Prometheus's own parser."""

from __future__ import annotations

import os

from prometheus_client.parser import text_string_to_metric_families

from shortlist.serve.metrics import BOUNDS_S, Metrics, shared_memory
from shortlist.serve.routes import ROUTES

RECOMMEND = ROUTES[0]


def samples(text: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_counts_sums_and_buckets_are_those_of_the_answers() -> None:
    metrics = Metrics()
    for seconds in (0.0001, 0.0002, 0.003, 7.0):  # the first is on its bound: le means at most
        metrics.count(RECOMMEND, 200, seconds)
    metrics.count(RECOMMEND, 429, 0.0)
    metrics.count(None, 404, 0.5)
    found = samples(metrics.text({}))
    label = (("method", "POST"), ("route", "/recommend"))
    assert found["shortlist_http_requests_total", (*label, ("status", "200"))] == 4
    assert found["shortlist_http_requests_total", (*label, ("status", "429"))] == 1
    assert found["shortlist_http_requests_total", (("method", ""), ("route", ""), ("status", "404"))] == 1
    name = "shortlist_http_request_seconds"
    buckets = [found[f"{name}_bucket", (("le", str(bound)), *label)] for bound in (*BOUNDS_S, "+Inf")]
    assert buckets == [1, 2, 2, 2, 2, *[3] * 9, 4]  # of the answers alone: a refusal is quick, and says nothing of them
    assert found[f"{name}_count", label] == 4
    assert abs(found[f"{name}_sum", label] - 7.0033) < 1e-9


def test_workers_add_up_across_processes() -> None:
    memory = shared_memory(workers=3)
    for worker in range(1, 3):
        pid = os.fork()
        if pid == 0:
            for _ in range(worker * 10):
                Metrics(memory, worker=worker).count(RECOMMEND, 200, 0.001)
            os._exit(0)
        os.waitpid(pid, 0)
    mine = Metrics(memory, worker=0)
    mine.add("unknown_ids", 3)
    found = samples(mine.text({}))
    assert found["shortlist_http_requests_total", (("method", "POST"), ("route", "/recommend"), ("status", "200"))] == 30
    assert found["shortlist_unknown_ids_total", ()] == 3


def test_numbers_of_now_are_gauges_and_texts_are_labels() -> None:
    found = samples(Metrics().text({"version": 'v"1\\\n', "items": 17, "ready": True, "other": None}))
    assert found["shortlist_items", ()] == 17 and found["shortlist_ready", ()] == 1
    assert found["shortlist_info", (("version", 'v"1\\\n'),)] == 1


def test_a_group_of_things_becomes_gauges_with_their_names() -> None:
    found = samples(Metrics().text({"sources": {"learned": {"calls": 7, "resting": False}, "fresh": {"calls": 3, "resting": True}}}))
    assert found["shortlist_sources_calls", (("name", "learned"),)] == 7 and found["shortlist_sources_calls", (("name", "fresh"),)] == 3
    assert found["shortlist_sources_resting", (("name", "fresh"),)] == 1


def test_every_status_of_every_route_has_a_place() -> None:
    metrics = Metrics()
    for route in ROUTES:
        for status in route.statuses:
            metrics.count(route, status, 0.01)
    found = samples(metrics.text({}))
    assert sum(value for (name, _), value in found.items() if name == "shortlist_http_requests_total") == sum(
        len(route.statuses) for route in ROUTES
    )
