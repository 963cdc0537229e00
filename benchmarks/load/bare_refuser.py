"""A server that only refuses, `python bare_refuser.py BUSY_MS`: what a refusal costs the kernel, whoever sends it.

Between two looks at its sockets it is busy, as a server is that answers others meanwhile: so many requests wait at each look, and none
wakes it. Prints its address first; GET /ready gets a 200.
"""

from __future__ import annotations

import select
import socket
import sys
import time

REFUSAL_BYTES = 330  # of the refusals of `shortlist serve`
_HEAD = b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 1\r\ncontent-length: %d\r\n\r\n"
_REFUSAL = _HEAD % (REFUSAL_BYTES - len(_HEAD)) + b" " * (REFUSAL_BYTES - len(_HEAD))
_READY = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
_LARGEST = 1 << 16


def main() -> None:
    busy_s = float(sys.argv[1]) / 1e3
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    listener.setblocking(False)
    print("http://{}:{}".format(*listener.getsockname()), flush=True)
    poller = select.epoll()
    poller.register(listener, select.EPOLLIN)
    connections: dict[int, socket.socket] = {}
    while True:
        for descriptor, _ in poller.poll():
            if descriptor == listener.fileno():
                connection, _ = listener.accept()
                connection.setblocking(False)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connections[connection.fileno()] = connection
                poller.register(connection, select.EPOLLIN)
            elif not refused(connections[descriptor]):
                connections.pop(descriptor).close()
        until = time.perf_counter() + busy_s
        while time.perf_counter() < until:
            pass


def refused(connection: socket.socket) -> bool:
    """Whether there was a request, which is answered now, and not the connection's end."""
    try:
        request = connection.recv(_LARGEST)
        if request:
            connection.send(_READY if request.startswith(b"GET /ready") else _REFUSAL)
    except OSError:
        return False
    return bool(request)


if __name__ == "__main__":
    main()
