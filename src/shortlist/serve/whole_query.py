"""Is this packet exactly one query? Then it can be refused without being parsed: what a refusal costs is taken from answers.

At five times the capacity four refusals are paid for each answer. Parsing HTTP, making a scope and a cycle costs more than
reading and writing the socket. Most clients send a query in one packet, and that can be told from a few places in it. Where
anything is unusual the answer is no, and the parser decides.
"""

from __future__ import annotations

from shortlist.serve.routes import GATED, Route

_STARTS = {b"%b %b HTTP/1.1" % (method.encode(), path): route for (method, path), route in GATED.items()}
_LENGTH = b"\r\ncontent-length:"
_CONNECTION, _KEPT = b"\r\nconnection:", b"\r\nconnection: keep-alive\r\n"
_REQUEST_ID = b"\r\nx-request-id:"
# Another way to tell where a body ends, or that more is to come.
_UNUSUAL = (b"\r\ntransfer-encoding:", b"\r\nexpect:", b"\r\nupgrade:", b"\r\n ", b"\r\n\t")


def whole_query(data: bytes) -> tuple[Route, bytes | None] | None:
    """(route, the X-Request-Id it carries) of the one query that `data` is, from its first byte to its last; None for all else."""
    route = _STARTS.get(data[: data.find(b"\r\n")])
    end = data.find(b"\r\n\r\n") + 2
    if route is None or end < 2:
        return None
    head = data[:end].lower()
    if any(mark in head for mark in _UNUSUAL) or head.count(_CONNECTION) != head.count(_KEPT):
        return None
    place = head.find(_LENGTH)
    if place < 0 or head.find(_LENGTH, place + 1) >= 0:
        return None
    length = _value(head, place + len(_LENGTH))
    if not length.isdigit() or len(length) > 9 or len(data) != end + 2 + int(length):
        return None
    place = head.find(_REQUEST_ID)
    return route, None if place < 0 else _value(data, place + len(_REQUEST_ID))


def _value(head: bytes, start: int) -> bytes:
    return head[start : head.find(b"\r\n", start)].strip(b" \t")
