"""What a request asks: its route, the id in its path, the message in its body. Everything else about it is refused here.

No state, no service: bytes in, values out, or a Refusal that says what must hold.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec

from shortlist.serve.messages import LONGEST_ID
from shortlist.serve.refusals import Refusal
from shortlist.serve.routes import ITEM_PATH, ROUTES, Route

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

JSON_TYPE = b"application/json"
_BY_PATH = {path: {route.method: route for route in ROUTES if route.path == path} for path in {route.path for route in ROUTES}}
_BY_RAW_PATH = {path.encode(): routes for path, routes in _BY_PATH.items() if not path.endswith("{id}")}
_OF_ITEM = _BY_PATH[ITEM_PATH + "{id}"]
_RAW_ITEM_PATH = ITEM_PATH.encode()


class ClientGone(Exception):
    """The client left before its request was whole: nobody is there to answer."""


def find_route(scope: Scope) -> tuple[Route, bytes]:
    """(route, the id as it stands in the path, or nothing) of a request. Raises Refusal for unknown paths and methods."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    path = raw.partition(b"?")[0]
    routes, raw_id = _BY_RAW_PATH.get(path), b""
    if routes is None and path.startswith(_RAW_ITEM_PATH) and path.count(b"/") == 2 and len(path) > len(_RAW_ITEM_PATH):
        routes, raw_id = _OF_ITEM, path[len(_RAW_ITEM_PATH) :]
    if routes is None:
        raise Refusal(404, "there is no such path; /openapi.json lists them all")
    method: str = scope["method"]
    route = routes.get("GET" if method == "HEAD" else method)
    if route is None:
        allowed = sorted({*routes, "HEAD"} if "GET" in routes else routes)
        raise Refusal(405, f"the path takes {' and '.join(allowed)}: got another method", ((b"allow", ", ".join(allowed).encode()),))
    return route, raw_id


def decoded_id(raw: bytes) -> str:
    """The id that stands percent-encoded in a path. Raises Refusal."""
    try:
        item_id = unquote_to_bytes(raw).decode("utf-8")
    except UnicodeDecodeError:
        raise Refusal(400, "an id in a path must be percent-encoded UTF-8: got other bytes") from None
    if len(item_id) > LONGEST_ID:
        raise Refusal(422, f"an id must have at most {LONGEST_ID} characters: got {len(item_id)}")
    return item_id


async def received_body(receive: Receive, headers: dict[bytes, bytes], *, largest_bytes: int) -> bytes:
    """The whole body. Raises Refusal for the wrong media type and too many bytes, told or sent; ClientGone."""
    media_type = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if media_type != JSON_TYPE:
        raise Refusal(415, f"content-type must be application/json: got {media_type[:100].decode('latin-1') or 'none'}")
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise Refusal(415, "the body must be sent as it is: got a content-encoding")
    told = headers.get(b"content-length", b"0")
    if told.isdigit() and int(told[:20]) > largest_bytes:
        raise Refusal(413, f"a body must have at most {largest_bytes:,} bytes: got {told[:20].decode()}; send several requests")
    message = await receive()
    body: bytes = message.get("body", b"")
    while message.get("more_body", False) or message["type"] == "http.disconnect":
        if message["type"] == "http.disconnect":
            raise ClientGone
        if len(body) > largest_bytes:
            break
        message = await receive()
        body += message.get("body", b"")
    if len(body) > largest_bytes:
        raise Refusal(413, f"a body must have at most {largest_bytes:,} bytes: got more; send several requests")
    return body


def decoded_body(decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:
    """The message in a body. Raises Refusal naming the byte, or the field."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise Refusal(422, f"{error}; /openapi.json has the schema") from None
    except UnicodeDecodeError as error:
        raise Refusal(400, f"the body must be UTF-8: got byte {error.object[error.start]:#04x}") from None
    except msgspec.DecodeError as error:
        raise Refusal(400, f"the body must be JSON: {error}") from None
    except RecursionError:
        raise Refusal(400, "the body must be JSON of moderate depth: got too many levels") from None
