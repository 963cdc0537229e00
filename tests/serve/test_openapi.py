"""The OpenAPI document: complete, and true. Schemathesis asks a server what the document allows, and what it does not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from load.server_process import running
from schemathesis.config import SchemathesisConfig
from small_http import asked, small_app

from shortlist.serve import messages
from shortlist.serve.limits import Limits
from shortlist.serve.openapi import openapi_document
from shortlist.serve.routes import ROUTES

DOCUMENT = openapi_document(Limits())
PROGRAM = Path(__file__).parents[1] / "small_server.py"
EXAMPLES = int(os.environ.get("SHORTLIST_TEST_EXAMPLES", "15"))  # an operation; chaos/hostile.py asks for more


CHECKS = {
    # What a schema cannot say, the server still refuses: 416.0 is an integer to JSON Schema, and no id to us; items need their id column.
    "positive_data_acceptance": {"enabled": False},
    "negative_data_rejection": {"expected-statuses": [400, 404, 413, 415, 422]},
}
schema = schemathesis.openapi.from_dict(DOCUMENT, config=SchemathesisConfig.from_dict({"checks": CHECKS}))


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with running([str(PROGRAM), "{}"]) as server:
        yield "http://{}:{}".format(*server.address)


@schema.parametrize()
@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
def test_the_server_does_what_its_document_says(case: Any, address: str) -> None:
    case.call_and_validate(base_url=address)


def test_every_route_stands_in_the_document_with_every_status_it_gives() -> None:
    operations = {(method.upper(), path): operation for path, found in DOCUMENT["paths"].items() for method, operation in found.items()}
    assert set(operations) == {(route.method, route.path) for route in ROUTES}
    for route in ROUTES:
        operation = operations[route.method, route.path]
        assert operation["operationId"] == route.name
        assert tuple(map(int, operation["responses"])) == route.statuses
        assert ("requestBody" in operation) == (route.takes is not None)


def test_the_schemas_are_those_of_the_messages() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    request = schemas["RecommendRequest"]
    assert request["properties"]["k"] == {"type": "integer", "minimum": 1, "maximum": messages.LARGEST_K, "default": 100}
    assert request["additionalProperties"] is False
    assert request["properties"]["history"]["anyOf"][0]["maxItems"] == messages.LONGEST_HISTORY
    assert set(schemas["Slate"]["required"]) >= {"version", "items", "scores", "sources"}


def test_the_document_is_served_as_it_is_made() -> None:
    reply = asked(small_app(limits=Limits(body_largest_bytes=1234)), "GET", "/openapi.json")
    assert reply.json == openapi_document(Limits(body_largest_bytes=1234)) and "1,234 bytes" in reply.json["info"]["description"]


@pytest.mark.parametrize("status", [429, 503])
def test_who_is_to_come_again_is_told_when(status: int) -> None:
    responses = [
        found["responses"][str(status)]
        for path in DOCUMENT["paths"].values()
        for found in path.values()
        if str(status) in found["responses"]
    ]
    assert responses and all("Retry-After" in response["headers"] for response in responses)
