"""Many slow clients: `python slow_clients.py HOST PORT COUNT`, until stdin ends. Prints one JSON line about how they were cut.

A third sends a byte of its headers every few seconds, a third a byte of its body, a third asks much and reads nothing.
Whoever is cut comes again.
"""

from __future__ import annotations

import heapq
import json
import select
import socket
import sys
import time
from typing import Any

STARTS = (
    b"POST /recommend HTTP/1.1\r\nX-Slow: ",
    b"POST /recommend HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 60000\r\n\r\n{",
    b"GET /openapi.json HTTP/1.1\r\n\r\n" * 40,
)
BYTE_EVERY_S = 2.0
SPREAD_S = 5.0


class SlowClient:
    """One connection that never gets done."""

    def __init__(self, address: tuple[str, int], kind: int) -> None:
        self.kind, self.born_s, self.next_s = kind, time.monotonic(), time.monotonic() + BYTE_EVERY_S
        self.stands = True
        self.socket = socket.socket()
        if kind == 2:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        self.socket.connect(address)
        self.socket.setblocking(False)
        self._send(STARTS[kind])

    def creep(self) -> bool:
        """Whether the connection still stands after another byte."""
        self.next_s += BYTE_EVERY_S
        return self._send(b"x" if self.kind < 2 else b"\r\n")

    def _send(self, data: bytes) -> bool:
        try:
            self.socket.send(data)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return True

    def is_ended(self) -> bool:
        """Whether the server has said its last, to a client who reads; the third kind does not, and hears of an end by an error."""
        if self.kind == 2:
            return True
        try:
            return self.socket.recv(4096) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True


class Crowd:
    """Slow clients, each followed by another when it is cut. They wait together: to look at each in turn would take a core from others."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address, self._poller = address, select.epoll()
        self._poller.register(sys.stdin, select.EPOLLIN)
        self._clients: dict[int, SlowClient] = {}  # by descriptor
        self._due: list[tuple[float, int, SlowClient]] = []  # a heap; those of clients who are gone are skipped
        self._born, self.cut, self.longest_s = 0, [0, 0, 0], 0.0

    def add(self, kind: int) -> None:
        """One more, who never gets done in this way."""
        client = SlowClient(self._address, kind)
        self._clients[client.socket.fileno()] = client
        self._poller.register(client.socket, select.EPOLLIN if kind < 2 else 0)  # an end by an error is told in any case
        self._wait_for(client)

    def creep_until_stdin_ends(self) -> None:
        """Comes back when stdin ends."""
        while True:
            events = self._poller.poll(max(0.0, self._due[0][0] - time.monotonic()))
            for descriptor, _ in events:
                if descriptor == sys.stdin.fileno():
                    return
                if self._clients[descriptor].is_ended():
                    self._replace(self._clients[descriptor])
            while self._due[0][0] <= time.monotonic():
                client = heapq.heappop(self._due)[2]
                if client.stands and client.creep():
                    self._wait_for(client)
                elif client.stands:
                    self._replace(client)

    def report(self) -> dict[str, Any]:
        """How many were cut, by kind, and how long the longest stood, those who still stand included."""
        now_s = time.monotonic()
        longest_s = max([self.longest_s, *(now_s - client.born_s for client in self._clients.values())])
        return {"cut": dict(zip(("headers", "body", "unread"), self.cut, strict=True)), "longest_s": round(longest_s, 2)}

    def _wait_for(self, client: SlowClient) -> None:
        self._born += 1
        heapq.heappush(self._due, (client.next_s, self._born, client))

    def _replace(self, client: SlowClient) -> None:
        client.stands = False
        self.cut[client.kind] += 1
        self.longest_s = max(self.longest_s, time.monotonic() - client.born_s)
        del self._clients[client.socket.fileno()]
        client.socket.close()  # its descriptor leaves the poller with it
        self.add(client.kind)


def main() -> None:
    address, count = (sys.argv[1], int(sys.argv[2])), int(sys.argv[3])
    crowd = Crowd(address)
    for number in range(count):
        crowd.add(number % 3)
        time.sleep(SPREAD_S / count)  # slow clients do not come all at once, and are not cut all at once
    print("connected", flush=True)
    crowd.creep_until_stdin_ends()
    print(json.dumps(crowd.report()))


if __name__ == "__main__":
    main()
