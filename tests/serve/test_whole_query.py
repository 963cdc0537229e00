"""Which packets are one query: by hand, and against the parser that the server uses for all else."""

from __future__ import annotations

import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from load.open_loop import post

from shortlist.serve.routes import GATED
from shortlist.serve.whole_query import whole_query

RECOMMEND = GATED["POST", b"/recommend"]
QUERY = post("/recommend", b'{"k":1}')


class Messages:
    """What a parser sees: how many requests began, and how many are whole."""

    def __init__(self) -> None:
        self.begun = self.whole = 0
        self.is_kept = False
        self.parser = httptools.HttpRequestParser(self)

    def on_headers_complete(self) -> None:
        self.is_kept = self.parser.should_keep_alive()

    def on_message_begin(self) -> None:
        self.begun += 1

    def on_message_complete(self) -> None:
        self.whole += 1


def test_a_query_in_one_packet_is_one() -> None:
    assert whole_query(QUERY) == (RECOMMEND, None)
    assert whole_query(post("/similar", b"{}")) == (GATED["POST", b"/similar"], None)
    with_id = QUERY.replace(b"Host: shortlist", b"x-ReQuest-iD: \t aB-1 ")
    assert whole_query(with_id) == (RECOMMEND, b"aB-1")
    kept = QUERY.replace(b"Host: shortlist", b"Connection: keep-alive")
    assert whole_query(kept) == (RECOMMEND, None)


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        QUERY[:-1],
        QUERY + b"P",
        QUERY + QUERY,
        QUERY[: QUERY.index(b"\r\n\r\n")],
        b"\r\n" + QUERY,
        QUERY.replace(b"POST", b"GET"),
        QUERY.replace(b"/recommend", b"/recommend/batch"),
        QUERY.replace(b"/recommend", b"/recommend?k=1"),
        QUERY.replace(b"HTTP/1.1", b"HTTP/1.0"),  # its connection ends
        QUERY.replace(b"Host: shortlist", b"Connection: close"),
        QUERY.replace(b"Host: shortlist", b"Connection: keep-alive, Upgrade"),
        QUERY.replace(b"Host: shortlist", b"Connection: keep-alive\r\nConnection: close"),
        QUERY.replace(b"Host: shortlist", b"Transfer-Encoding: chunked"),
        QUERY.replace(b"Host: shortlist", b"Expect: 100-continue"),
        QUERY.replace(b"Host: shortlist", b"Content-Length: 7"),
        QUERY.replace(b"Host: shortlist", b"Content-Length: 8"),
        QUERY.replace(b"Content-Length", b"Content-Lengths"),
        QUERY.replace(b"Content-Length: 7", b"Content-Length: +7"),
        QUERY.replace(b"Content-Length: 7", b"Content-Length: 7,7"),
        QUERY.replace(b"Content-Length: 7", b"Content-Length: \xb2"),
        QUERY.replace(b"Content-Length: 7", b"X: y\r\n Content-Length: 7"),
    ],
)
def test_anything_unusual_is_left_to_the_parser(packet: bytes) -> None:
    assert whole_query(packet) is None


HEADERS = st.lists(
    st.tuples(
        st.sampled_from(
            [b"Host", b"Content-Length", b"content-length", b"Transfer-Encoding", b"Connection", b"Expect", b"X-A", b"Upgrade"]
        ),
        st.sampled_from([b": ", b":", b" : ", b":\t"]),
        st.sampled_from([b"2", b"0", b"7", b"02", b"chunked", b"close", b"keep-alive", b"x", b"", b"2\r\n y", b"websocket", b"identity"]),
    ),
    max_size=5,
)


@settings(max_examples=400, deadline=None)
@given(headers=HEADERS, body=st.sampled_from([b"", b"{}", b"{}{}", b'{"k":1}', b"0\r\n\r\n"]), cut=st.integers(0, 3))
def test_where_it_sees_one_query_the_parser_sees_one_request_and_waits_for_the_next(
    headers: list[tuple[bytes, bytes, bytes]], body: bytes, cut: int
) -> None:
    packet = b"POST /recommend HTTP/1.1\r\n" + b"".join(b"".join(line) + b"\r\n" for line in headers) + b"\r\n" + body
    packet = packet[: len(packet) - cut]
    if whole_query(packet) is None:
        return
    seen = Messages()
    try:
        seen.parser.feed_data(packet)
    except httptools.HttpParserError:
        return  # it would have been refused as well
    assert (seen.begun, seen.whole) == (1, 1) and seen.is_kept
    seen.parser.feed_data(QUERY)
    assert (seen.begun, seen.whole) == (2, 2)


@given(length=st.integers(0, 99), body=st.binary(max_size=99))
def test_the_length_must_be_that_of_the_body(length: int, body: bytes) -> None:
    packet = b"POST /recommend HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (length, body)
    assert (whole_query(packet) is not None) == (length == len(body))
