"""A process, or several, that serve a store: sockets, signals, the way down.

SIGTERM (or SIGINT): /ready says 503 at once, requests are still accepted for a moment, so that who sends them can learn of
it, each answer closing its connection; then the listener closes, accepted requests are finished, and the process ends with
0. A second signal changes nothing.

With several workers the parent only binds and forks, before anything heavy is imported; the workers share the socket and
the metrics. A worker that dies is replaced; one that cannot start ends them all.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import mmap
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import cast

import uvicorn

from shortlist.errors import ShortlistError
from shortlist.serve.accepting import Acceptor
from shortlist.serve.app import App
from shortlist.serve.contract import ServiceContract
from shortlist.serve.deadlines import keep_deadlines
from shortlist.serve.heap import keep_no_freed_pages
from shortlist.serve.keys import Keys, keys_from
from shortlist.serve.limits import Limits
from shortlist.serve.listener import open_listener, refuse_new
from shortlist.serve.logs import Log, LogHandler
from shortlist.serve.metrics import Metrics, shared_memory
from shortlist.serve.protocol import PatientProtocol

# Matrix products of one query are too small to share: a second thread spins for it, and takes the core from other answers.
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
KEEP_ALIVE_S = 75  # longer than what stands in front usually keeps a connection: it must not send into one that just closes
SWITCH_S = 0.00002  # how long a thread may keep the interpreter from the event loop, which asks for it a dozen times an answer
EXIT_UNOPENED = 3  # of a worker whose service did not open: another try would fail the same way
_RESTART_S = 0.5
_CLOSE_LONGEST_S = 3  # the service's own way down


@dataclass(frozen=True, kw_only=True)
class Serving:
    """What a server needs: how to open the service, where to listen, whom to let in."""

    open_service: Callable[[], ServiceContract]
    keys: Keys
    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    limits: Limits = field(default_factory=Limits)


def serve_store(store: Path, *, host: str, port: int, workers: int, events: str | None) -> None:
    """Serves a store as `serve` does, with the keys that the environment names (keys.py), events in the database `events`."""

    for variable in ONE_THREAD:  # read when numpy is imported, which only opening the service does
        os.environ.setdefault(variable, "1")
    keep_no_freed_pages()

    def open_service() -> ServiceContract:
        from shortlist.serve.service import Service  # not before the workers are forked
        from shortlist.serve.settings import ServeSettings

        return Service.open(store, ServeSettings(events=events))

    serve(Serving(open_service=open_service, keys=keys_from(os.environ, host=host), host=host, port=port, workers=workers))


def serve(serving: Serving) -> None:
    """Comes back when a signal has ended the server. Raises ConfigError for an address that cannot be had, and what opening raises."""
    listener = open_listener(serving.host, serving.port)
    host, port = listener.getsockname()[:2]
    print(f"http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)
    memory = shared_memory(workers=serving.workers)
    if serving.workers == 1:
        _serve_one(serving, listener, memory, 0)
    else:
        _Workers(serving, listener, memory).run()


class Server(uvicorn.Server):
    """uvicorn's server with a way down that loses nothing, and deadlines for connections."""

    def __init__(self, config: uvicorn.Config, app: App, *, is_one_of_several: bool) -> None:
        super().__init__(config)
        self._app, self._is_one_of_several = app, is_one_of_several
        self._told_at_s: float | None = None  # when the first signal came
        self._opening: asyncio.Task[None] | None = None
        self._deadlines: asyncio.Task[None] | None = None
        self._acceptors: list[Acceptor] = []

    @property
    def failure(self) -> BaseException | None:
        """What kept the service from opening."""
        return self._opening.exception() if self._opening is not None and self._opening.done() else None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listens, and opens the service: until it is open /ready says 503. One of several workers opens it first, so that a
        request is not taken by one that cannot answer while another could."""
        self._opening = asyncio.create_task(self._open())
        if self._is_one_of_several:
            await self._opening
        await super().startup([])
        connections = cast(set[PatientProtocol], self.server_state.connections)  # `http` of the configuration
        self._deadlines = asyncio.create_task(keep_deadlines(connections, failed=self._not_enforced))
        self._acceptors = [Acceptor(listener, self._protocol, failed=self._not_accepted) for listener in sockets or []]

    def _not_accepted(self, error: OSError) -> None:
        self._app.log.say("not_accepted", error=str(error))

    def _not_enforced(self, error: Exception) -> None:
        self._app.log.say("deadline_not_enforced", error=f"{type(error).__name__}: {error}")

    async def _open(self) -> None:
        await self._app.open()
        gc.collect()
        gc.freeze()  # what was opened stays: no collection need look at it
        self._app.log.say("ready", pid=os.getpid(), version=self._app.version)

    async def on_tick(self, counter: int) -> bool:
        """Whether to end."""
        if self._told_at_s is not None and time.monotonic() - self._told_at_s >= self._app.limits.drain_notice_s:
            self.should_exit = True
        if self.failure is not None:
            self.should_exit = True
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begins to drain; a second signal changes nothing."""
        if self._told_at_s is None:
            self._told_at_s = time.monotonic()
            limits = self._app.limits
            signal.alarm(math.ceil(limits.drain_notice_s + limits.drain_longest_s + _CLOSE_LONGEST_S))  # whatever hangs, the process ends
            self._app.drain()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Takes no more connections, ends what is accepted, then gives up the service."""
        for listener in sockets or []:
            refuse_new(listener)
        await asyncio.sleep(self._app.limits.handshake_longest_s)  # accepting goes on
        for acceptor in self._acceptors:
            await acceptor.close()
        await super().shutdown(sockets)
        if self._deadlines is not None:
            self._deadlines.cancel()
        if self._opening is not None:
            await asyncio.wait([self._opening])
        await self._app.close()

    def _protocol(self) -> asyncio.Protocol:
        return PatientProtocol(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)


def _serve_one(serving: Serving, listener: socket.socket, memory: mmap.mmap, worker: int) -> None:
    sys.setswitchinterval(SWITCH_S)
    log = Log()
    _log_libraries(log)
    app = App(serving.open_service, keys=serving.keys, limits=serving.limits, metrics=Metrics(memory, worker=worker), log=log)
    config = uvicorn.Config(
        app,
        http=PatientProtocol,
        loop="uvloop",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=int(serving.limits.drain_longest_s) or 1,
    )
    server = Server(config, app, is_one_of_several=serving.workers > 1)
    log.say("started", pid=os.getpid(), worker=worker)
    server.run(sockets=[listener])
    log.say("stopped", pid=os.getpid(), worker=worker)
    if server.failure is not None:
        raise server.failure


class _Workers:
    """The parent of several worker processes."""

    def __init__(self, serving: Serving, listener: socket.socket, memory: mmap.mmap) -> None:
        self._serving, self._listener, self._memory = serving, listener, memory
        self._workers: dict[int, int] = {}  # process id -> number
        self._is_stopping = False

    def run(self) -> None:
        """Comes back when all workers have ended. Raises ShortlistError where one cannot start."""
        for sig in (signal.SIGTERM, signal.SIGINT):
            signal.signal(sig, self._stop)
        for worker in range(self._serving.workers):
            self._fork(worker)
        failed = False
        while self._workers:
            pid, status = os.wait()
            worker = self._workers.pop(pid)
            if self._is_stopping:
                continue
            code = os.waitstatus_to_exitcode(status)
            if code == EXIT_UNOPENED:
                failed = True
                self._stop(signal.SIGTERM, None)
            else:
                Log().say("worker_died", worker=worker, exit_code=code)
                time.sleep(_RESTART_S)
                self._fork(worker)
        if failed:
            raise ShortlistError("a worker could not start; see above")

    def _fork(self, worker: int) -> None:
        pid = os.fork()
        if pid:
            self._workers[pid] = worker
            if self._is_stopping:  # told between the fork and here
                os.kill(pid, signal.SIGTERM)
            return
        code = 1
        try:
            for sig in (signal.SIGTERM, signal.SIGINT):
                signal.signal(sig, signal.SIG_DFL)
            _serve_one(self._serving, self._listener, self._memory, worker)
            code = 0
        except ShortlistError as error:
            print(f"shortlist serve: {error}", file=sys.stderr, flush=True)
            code = EXIT_UNOPENED
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)  # nothing of the parent's may run here

    def _stop(self, sig: int, frame: FrameType | None) -> None:
        self._is_stopping = True
        self._listener.close()  # the workers' ends are the last ones: what they do not accept nobody would
        for pid in list(self._workers):
            os.kill(pid, signal.SIGTERM)


def _log_libraries(log: Log) -> None:
    """What uvicorn and asyncio log becomes lines of ours; uvicorn's warnings are about clients, and counted in the metrics."""
    for name, level in (("uvicorn.error", logging.ERROR), ("asyncio", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [LogHandler(log)], False
        logger.setLevel(level)
