"""Whole answers as bytes, for requests that do not go the long way through ASGI. `dated` is uvicorn's headers of every answer."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from shortlist.serve.app import TOO_BUSY
from shortlist.serve.refusals import RETRY_AFTER, Headers, problem_body
from shortlist.serve.requests import JSON_TYPE

_CLOSE = b"connection: close\r\n"
_OK = STATUS_LINE[200] + b"%bcontent-type: %b\r\ncontent-length: %d\r\nx-request-id: %b\r\n%b\r\n"
# A refusal under overload, made once: % (default headers, request id, length, close or nothing, request id).
_BUSY_BODY = problem_body(429, TOO_BUSY, "%b")
_BUSY_LENGTH = len(_BUSY_BODY) - len(b"%b")
_BUSY = b"%b%%bcontent-type: %b\r\n%b: %b\r\nx-request-id: %%b\r\ncontent-length: %%d\r\n%%b\r\n%b" % (
    STATUS_LINE[429],
    JSON_TYPE,
    *RETRY_AFTER[0],
    _BUSY_BODY,
)


def good_answer(dated: bytes, body: bytes, request_id: str, *, closing: bool) -> bytes:
    """A 200 with this JSON."""
    return b"".join((_OK % (dated, JSON_TYPE, len(body), request_id.encode(), _CLOSE if closing else b""), body))


def too_busy(dated: bytes, request_id: str, *, closing: bool) -> bytes:
    """A 429 that says when to come again."""
    encoded = request_id.encode()
    return _BUSY % (dated, encoded, _BUSY_LENGTH + len(encoded), _CLOSE if closing else b"", encoded)


def last_word(dated: bytes, status: int, message: str, request_id: str, headers: Headers) -> bytes:
    """A Problem that ends the connection."""
    body = problem_body(status, message, request_id)
    lines = (
        (b"content-type", JSON_TYPE),
        (b"content-length", str(len(body)).encode()),
        (b"x-request-id", request_id.encode()),
        *headers,
    )
    head = b"".join(b"%b: %b\r\n" % line for line in lines)
    return b"%b%b%b%b\r\n%b" % (STATUS_LINE[status], dated, head, _CLOSE, body)
