"""Many slow clients: `python slow_clients.py HOST PORT COUNT`, until stdin ends. Prints one JSON line about how they were cut.

A third sends a byte of its headers every few seconds, a third a byte of its body, a third asks much and reads nothing.
Whoever is cut comes again.
"""

from __future__ import annotations

import json
import selectors
import socket
import sys
import time

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
        self.socket = socket.socket()
        if kind == 2:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        self.socket.connect(address)
        self.socket.setblocking(False)
        self._send(STARTS[kind])

    def creep(self, now_s: float) -> bool:
        """Whether the connection still stands."""
        if now_s >= self.next_s:
            self.next_s = now_s + BYTE_EVERY_S
            if not self._send(b"x" if self.kind < 2 else b"\r\n"):
                return False
        return not self._is_ended() if self.kind < 2 else True

    def _send(self, data: bytes) -> bool:
        try:
            self.socket.send(data)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return True

    def _is_ended(self) -> bool:
        try:
            return self.socket.recv(4096) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True


def main() -> None:
    address, count = (sys.argv[1], int(sys.argv[2])), int(sys.argv[3])
    clients = []
    for number in range(count):
        clients.append(SlowClient(address, number % 3))
        time.sleep(SPREAD_S / count)  # slow clients do not come all at once, and are not cut all at once
    print("connected", flush=True)
    waiter = selectors.DefaultSelector()
    waiter.register(sys.stdin, selectors.EVENT_READ)
    cut, longest_s = [0, 0, 0], 0.0
    while not waiter.select(0.05):
        now_s = time.monotonic()
        for place, client in enumerate(clients):
            if not client.creep(now_s):
                cut[client.kind] += 1
                longest_s = max(longest_s, now_s - client.born_s)
                client.socket.close()
                clients[place] = SlowClient(address, client.kind)
    now_s = time.monotonic()
    longest_s = max([longest_s, *(now_s - client.born_s for client in clients)])
    print(json.dumps({"cut": dict(zip(("headers", "body", "unread"), cut, strict=True)), "longest_s": round(longest_s, 2)}))


if __name__ == "__main__":
    main()
