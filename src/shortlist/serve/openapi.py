"""The OpenAPI document of the routes, made from the messages and the table: nothing in it is written twice."""

from __future__ import annotations

from typing import Any

import msgspec

from shortlist import __version__
from shortlist.serve.keys import VARIABLES, Role
from shortlist.serve.limits import Limits
from shortlist.serve.messages import LONGEST_ID, Problem
from shortlist.serve.refusals import MEANINGS
from shortlist.serve.routes import ROUTES, Route

_WITH_RETRY_AFTER = (429, 503)


def openapi_document(limits: Limits) -> dict[str, Any]:
    """The document, as plain values."""
    types = list(dict.fromkeys(found for route in ROUTES for found in (route.takes, route.gives) if found is not None))
    schemas, components = msgspec.json.schema_components([*types, Problem], ref_template="#/components/schemas/{name}")
    schema_of = dict(zip([*types, Problem], schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "shortlist",
            "version": __version__,
            "description": f"Retrieval over one published version. Bodies have at most {limits.body_largest_bytes:,} bytes. "
            "Every answer carries X-Request-Id: yours, where you sent a plain one.",
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": f"One key a role ({', '.join(VARIABLES)}); an admin key may write, a write key may read.",
                }
            },
        },
    }


def _operation(route: Route, schema_of: dict[type, dict[str, Any]]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "responses": {str(status): _response(route, status, schema_of) for status in route.statuses},
    }
    if route.has_id:
        operation["parameters"] = [
            {"name": "id", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1, "maxLength": LONGEST_ID}}
        ]
    if route.takes is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema_of[route.takes]}}}
    if route.role is not Role.ANYBODY:
        operation["security"] = [{"key": []}, {}]  # {}: a role without a key is open where only this machine reaches the server
        operation["description"] = f"Needs the {route.role.name.lower()} key, where the server has one."
    return operation


def _response(route: Route, status: int, schema_of: dict[type, dict[str, Any]]) -> dict[str, Any]:
    headers = {"X-Request-Id": {"schema": {"type": "string"}}}
    if status != 200:
        if status in _WITH_RETRY_AFTER:
            headers["Retry-After"] = {"schema": {"type": "string"}}
        return {"description": MEANINGS[status][1], "headers": headers, "content": {"application/json": {"schema": schema_of[Problem]}}}
    if route.name == "metrics":
        content: dict[str, Any] = {"text/plain": {"schema": {"type": "string"}}}
    else:
        content = {"application/json": {"schema": schema_of[route.gives] if route.gives is not None else {"type": "object"}}}
    return {"description": route.summary, "headers": headers, "content": content}
