"""Which packets are one query: by hand, and against the parser that the server uses for all else."""

from __future__ import annotations

import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from load.open_loop import post

from shortlist.serve import whole_query as whole_query_module
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
    body_at = len(QUERY) - len(b'{"k":1}')
    assert whole_query(QUERY) == (RECOMMEND, None, body_at, len(QUERY), True)
    assert whole_query(QUERY) == (RECOMMEND, None, body_at, len(QUERY), True)  # its head is known now
    similar = post("/similar", b"{}")
    assert whole_query(similar) == (GATED["POST", b"/similar"], None, len(similar) - 2, len(similar), True)
    with_id = QUERY.replace(b"Host: shortlist", b"x-ReQuest-iD: \t aB-1 ")
    assert whole_query(with_id) == (RECOMMEND, b"aB-1", body_at + len(with_id) - len(QUERY), len(with_id), False)  # a tab: for the parser
    with_id = with_id.replace(b"\t", b"")
    assert whole_query(with_id) == (RECOMMEND, b"aB-1", body_at + len(with_id) - len(QUERY), len(with_id), True)
    kept = QUERY.replace(b"Host: shortlist", b"Connection: keep-alive")
    found = whole_query(kept)
    assert found is not None and found.is_plain


@pytest.mark.parametrize(
    "line",
    [
        b"Authorization: Bearer x",
        b"Origin: http://a",
        b"Content-Encoding: gzip",
        b"Content-Type: text/plain",
        b"Accept : a",
        b"Accept",
        b": a",
        b"Accept: a\x00b",
        b"Accept: \xff",
        b"X-Request-Id: a\r\nX-Request-Id: b",
    ],
)
def test_what_is_refused_unparsed_need_not_be_answered_unparsed(line: bytes) -> None:
    found = whole_query(QUERY.replace(b"Host: shortlist", line))
    assert found is not None and not found.is_plain
    found = whole_query(QUERY.replace(b"application/json", b"application/json; charset=utf-8"))
    assert found is not None and not found.is_plain
    found = whole_query(QUERY.replace(b"Content-Type", b"Content-Typ"))
    assert found is not None and not found.is_plain


def test_only_so_many_heads_are_remembered() -> None:
    for number in range(3 * whole_query_module._MOST_KEPT):
        assert whole_query(QUERY.replace(b"shortlist", b"%d" % number)) is not None
    assert len(whole_query_module._kept) <= whole_query_module._MOST_KEPT
    assert whole_query(QUERY) is not None


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
            [
                b"Host",
                b"Content-Type",
                b"Accept",
                b"Content-Length",
                b"content-length",
                b"Transfer-Encoding",
                b"Connection",
                b"Expect",
                b"X-A",
                b"Upgrade",
            ]
        ),
        st.sampled_from([b": ", b":", b" : ", b":\t"]),
        st.sampled_from(
            [
                b"2",
                b"0",
                b"7",
                b"02",
                b"chunked",
                b"close",
                b"keep-alive",
                b"x",
                b"",
                b"2\r\n y",
                b"websocket",
                b"identity",
                b"application/json",
                b"a\x01",
            ]
        ),
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
    found = whole_query(packet)
    if found is None:
        return
    assert packet[found.body_at :] == body[: len(body) - cut] or not packet[found.body_at :]
    seen = Messages()
    try:
        seen.parser.feed_data(packet)
    except httptools.HttpParserError:
        assert not found.is_plain
        return  # it would have been refused as well
    assert (seen.begun, seen.whole) == (1, 1) and seen.is_kept
    seen.parser.feed_data(QUERY)
    assert (seen.begun, seen.whole) == (2, 2)


@given(length=st.integers(0, 99), body=st.binary(max_size=99))
def test_the_length_must_be_that_of_the_body(length: int, body: bytes) -> None:
    packet = b"POST /recommend HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (length, body)
    assert (whole_query(packet) is not None) == (length == len(body))
