"""The limits of the HTTP server, in one place: what a client may send, how long it may take, how much may wait."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one server process allows. The defaults are the documented behaviour; tests use smaller ones."""

    body_largest_bytes: int = 65_536
    head_largest_bytes: int = 32_768  # request line and headers together
    receive_longest_s: float = 10.0  # from the first byte of a request (or the connection) to its last
    linger_longest_s: float = 2.0  # how long the rest of a refused body is read and thrown away, so that its sender sees the answer
    wait_longest_s: float = 0.05  # a request that would wait longer for its turn is refused on arrival
    answer_latest_s: float = 1.0  # a request whose turn comes later than this after its arrival is refused
    leave_loop_s: float = 0.002  # where the quickest answers of a version take longer than this, threads compute them
    threads: int = 2  # of each lane that works in threads
    connections_most: int = 8_192
    drain_notice_s: float = 1.0  # how long after SIGTERM requests are still accepted, while /ready says 503
    handshake_longest_s: float = 0.1  # how long after that a handshake that has begun may take
    drain_grace_s: float = 0.3  # how long an idle connection stays open then: a request may be on its way
    drain_longest_s: float = 6.0  # how long accepted requests may take after that
