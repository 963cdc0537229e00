"""A `shortlist serve` of its own process, for as long as a block runs."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

START_LONGEST_S, STOP_LONGEST_S = 120.0, 12.0


class ServerProcess:
    """A running server."""

    def __init__(self, process: subprocess.Popen[str], address: tuple[str, int]) -> None:
        self.process, self.address = process, address

    def ask(self, method: str, path: str, body: bytes | None = None, *, timeout_s: float = 30.0) -> tuple[int, bytes]:
        """(status, body) of one request on a connection of its own."""
        connection = http.client.HTTPConnection(*self.address, timeout=timeout_s)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"} if body is not None else {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def await_ready(self) -> None:
        """Comes back when /ready says 200. Raises RuntimeError where the process ends, or never gets ready."""
        until = time.monotonic() + START_LONGEST_S
        while time.monotonic() < until:
            if self.process.poll() is not None:
                break
            try:
                if self.ask("GET", "/ready")[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.02)
        raise RuntimeError(f"the server must get ready within {START_LONGEST_S:g} s: it did not, exit code {self.process.poll()}")

    def cpu_seconds(self) -> tuple[float, float]:
        """(own, the kernel's for it) seconds that the process has had so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        own, kernel = (int(ticks) / os.sysconf("SC_CLK_TCK") for ticks in fields[11:13])
        return own, kernel

    def resident_bytes(self) -> int:
        """Memory of the process."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def running(
    arguments: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    log: IO[str] | int = subprocess.DEVNULL,
    apart: bool = False,
) -> Iterator[ServerProcess]:
    """A ready server: `python ARGUMENTS`, whose first line on stdout is its address. Ended by SIGTERM, or after a while by SIGKILL.

    apart   the last core is this process's, all others are the server's, as if the client had a machine of its own
    """
    own = os.sched_getaffinity(0)
    clients = {max(own)} if apart else own
    os.sched_setaffinity(0, own - clients or own)  # what is started inherits it
    process = subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=log, text=True, env={**os.environ, **(environment or {})}
    )
    os.sched_setaffinity(0, clients)
    try:
        assert process.stdout is not None
        line = process.stdout.readline().strip()
        parts = urlsplit(line)
        if parts.hostname is None or parts.port is None:
            raise RuntimeError(f"the server must print its address first: got {line!r}")
        server = ServerProcess(process, (parts.hostname, parts.port))
        server.await_ready()
        yield server
    finally:
        os.sched_setaffinity(0, own)
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_LONGEST_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        assert process.stdout is not None
        process.stdout.close()


def serve_store(store: Path, *more: str) -> list[str]:
    """The arguments of `shortlist serve` over a store, on a free port of this machine."""
    return ["-m", "shortlist", "serve", str(store), "--port", "0", *more]
