"""A listening socket that several processes may share, and how it stops without losing a connection.

Closing a listener resets the connections that the kernel has taken and nobody has accepted yet, and those whose handshake is under way;
their clients have sent a request and get no answer. So first the kernel is told to drop what asks to connect (those clients try again
a second later, and are refused then), handshakes that have begun come to their end, and only then the socket is closed.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
import sys
from collections.abc import Iterator

from shortlist.errors import ConfigError

BACKLOG = 2048
EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}  # no room for another connection
SEND_BYTES = 131_072  # that the kernel holds of answers nobody reads, a connection; by itself it takes megabytes
_ATTACH_FILTER = 26  # SO_ATTACH_FILTER of Linux
# Classic BPF over the TCP header: a packet with SYN and without ACK is dropped, all others pass.
_DROP_SYN = b"".join(
    struct.pack("HBBI", *instruction)
    for instruction in (
        (0x30, 0, 0, 13),  # load the byte of flags
        (0x54, 0, 0, 0x12),  # of which SYN and ACK
        (0x15, 0, 1, 0x02),  # SYN alone?
        (0x06, 0, 0, 0),  # keep no byte
        (0x06, 0, 0, 0xFFFFFFFF),  # keep all
    )
)


def open_listener(host: str, port: int) -> socket.socket:
    """A listening socket. Raises ConfigError where the address cannot be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except OSError as error:
        raise ConfigError(f"the host must be an address or a name of this machine: got {host!r} ({error})") from None
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BYTES)  # its connections have the same
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError(f"the address {host}:{port} must be free and this machine's: {error}; choose another --host or --port") from None
    return listener


def refuse_new(listener: socket.socket) -> None:
    """Nothing comes back. From now on nobody can begin to connect; who has begun still can end."""
    if sys.platform == "linux":
        program = ctypes.create_string_buffer(_DROP_SYN, len(_DROP_SYN))
        instructions = struct.pack("HP", len(_DROP_SYN) // 8, ctypes.addressof(program))
        listener.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, instructions)


def take_waiting(listener: socket.socket) -> Iterator[socket.socket]:
    """The connections that the kernel has taken and nobody has accepted. Raises OSError (EXHAUSTED) where there is no room for one."""
    listener.setblocking(False)
    while True:
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            return
        except ConnectionAbortedError:  # it left again
            continue
        yield connection
