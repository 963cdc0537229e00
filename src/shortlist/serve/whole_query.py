"""Is this packet exactly one query? Then it can be refused, and mostly answered, without being parsed.

Parsing HTTP, making a scope, a cycle and a task costs as much as the answer's search; at five times the capacity four refusals are paid
for each answer. Most clients send a query in one packet, and that can be told from a few places in it. Where anything is unusual
the answer is no, and the parser decides. A client's heads are much alike: those of late are remembered with what they say.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from shortlist.serve.routes import GATED, Route

_STARTS = {b"%b %b HTTP/1.1" % (method.encode(), path): route for (method, path), route in GATED.items()}
_LENGTH = b"\r\ncontent-length:"
_CONNECTION, _KEPT = b"\r\nconnection:", b"\r\nconnection: keep-alive\r\n"
_REQUEST_ID = b"\r\nx-request-id:"
# Another way to tell where a body ends, or that more is to come.
_UNUSUAL = (b"\r\ntransfer-encoding:", b"\r\nexpect:", b"\r\nupgrade:", b"\r\n ", b"\r\n\t")
# Headers that change nothing about an answer, written without fault; and JSON. Keys, origins and codings are the parser's.
_PLAIN = re.compile(
    rb"\r\n(?:(?:host|user-agent|accept|accept-encoding|accept-language|connection|content-length|x-request-id):[ -~]*\r\n)*"
    rb"content-type: ?application/json *\r\n"
    rb"(?:(?:host|user-agent|accept|accept-encoding|accept-language|connection|content-length|x-request-id):[ -~]*\r\n)*"
)
_LONGEST_KEPT, _MOST_KEPT = 512, 1024  # bytes of a head; heads


class WholeQuery(NamedTuple):
    """One query, from a packet's first byte to its last."""

    route: Route
    request_id: bytes | None  # that it carries
    body_at: int  # where its body begins
    size: int  # bytes of it all
    is_plain: bool  # nothing in its head needs the parser: it may be answered, too


_kept: dict[bytes, WholeQuery] = {}


def whole_query(data: bytes) -> WholeQuery | None:
    """The one query that `data` is; None for all else."""
    end = data.find(b"\r\n\r\n") + 2
    if end < 2:
        return None
    head = data[:end]
    found = _kept.get(head)
    if found is None:
        found = _read(head)
        if found is not None and end <= _LONGEST_KEPT and found.request_id is None:
            if len(_kept) >= _MOST_KEPT:
                _kept.clear()
            _kept[head] = found
    return found if found is not None and found.size == len(data) else None


def _read(head: bytes) -> WholeQuery | None:
    line_end = head.find(b"\r\n")
    route = _STARTS.get(head[:line_end])
    if route is None:
        return None
    lower = head.lower()
    if any(mark in lower for mark in _UNUSUAL) or lower.count(_CONNECTION) != lower.count(_KEPT):
        return None
    place = lower.find(_LENGTH)
    if place < 0 or lower.find(_LENGTH, place + 1) >= 0:
        return None
    length = _value(lower, place + len(_LENGTH))
    if not length.isdigit() or len(length) > 9:
        return None
    place = lower.find(_REQUEST_ID)
    request_id = None if place < 0 else _value(head, place + len(_REQUEST_ID))
    body_at = len(head) + 2
    is_plain = _PLAIN.fullmatch(lower, line_end) is not None and lower.count(_REQUEST_ID) < 2
    return WholeQuery(route, request_id, body_at, body_at + int(length), is_plain)


def _value(head: bytes, start: int) -> bytes:
    return head[start : head.find(b"\r\n", start)].strip(b" \t")
