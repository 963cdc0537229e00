"""Answers that are not what was asked for: status, one word, a sentence that says what must hold, what was got, what to do."""

from __future__ import annotations

import msgspec

from shortlist.serve.messages import Problem

Headers = tuple[tuple[bytes, bytes], ...]
NO_HEADERS: Headers = ()
RETRY_AFTER: Headers = ((b"retry-after", b"1"),)

# What each status means here; the OpenAPI document says it in these words.
MEANINGS = {
    400: ("bad_request", "The request is not HTTP, its path or query is malformed, or its body is not JSON in UTF-8."),
    401: ("unauthorized", "A key is needed: none was given, or one that is unknown."),
    403: ("forbidden", "The key does not reach this far, or a browser's page asks for what needs a key."),
    404: ("not_found", "There is no such route or item."),
    405: ("method_not_allowed", "The route takes other methods, named in Allow."),
    408: ("too_slow", "The request took too long to arrive; the connection is closed."),
    413: ("too_large", "The body is larger than the server takes."),
    415: ("unsupported_media_type", "The body must be application/json, as it is (no content encoding)."),
    422: ("unfit", "The body is JSON, but a field breaks a rule; the message names it."),
    429: ("overloaded", "Too much waits already; nothing was done. Try again after Retry-After seconds."),
    431: ("head_too_large", "Request line and headers are larger than the server takes; the connection is closed."),
    500: ("internal", "A fault of the server's; it is in the log under the request id."),
    503: ("unavailable", "The server starts, drains, or lost what it needs. Try again after Retry-After seconds."),
}


class Refusal(Exception):
    """An answer with a Problem in it."""

    def __init__(self, status: int, message: str, headers: Headers = NO_HEADERS) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers


def problem_body(status: int, message: str, request_id: str) -> bytes:
    """The JSON of a Problem."""
    return msgspec.json.encode(Problem(error=MEANINGS[status][0], message=message, request_id=request_id))
