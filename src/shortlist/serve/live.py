"""What is live in this process: one pointer to a version and its overlay, the journal that both follow, and how they change.

A request reads the pointer once. A write goes to the journal, and whoever sees the journal grow applies what is new: the writer,
the next request, the other processes. A new version is loaded beside the old one, catches up with the journal, and takes the pointer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from shortlist.errors import BundleError, NotFoundError, ShortlistError, UnavailableError
from shortlist.manifest import published_facts
from shortlist.pace import nobody_waits, unhurried
from shortlist.serve.answering import Pinned
from shortlist.serve.compaction import compacted
from shortlist.serve.ids import Id
from shortlist.serve.journal import Journal
from shortlist.serve.loading import Loaded, judging_queries, least_recall, load_version, recall_of
from shortlist.serve.messages import Accepted, RecommendRequest, Reloaded
from shortlist.serve.overlay import Overlay
from shortlist.serve.settings import ServeSettings
from shortlist.serve.version import LiveVersion
from shortlist.serve.writes import Encoded, Write, applied, decoded, delete_of, put_of, replayed
from shortlist.store import current_version, prune, publish_version, set_current, versions

_POSITION = "journal"  # of a compacted version's facts: what of the journal it holds
_encoder = msgspec.json.Encoder()


class Live:
    """The live version of a store and what changed since. Safe to call from several threads; loads, one at a time, block no request."""

    def __init__(
        self, store: Path, settings: ServeSettings, journal: Journal | None, recent: Callable[[], Sequence[RecommendRequest]]
    ) -> None:
        """Raises BundleError where no version is live, or it is refused.

        journal   None where the store cannot be written to: then nothing can be put
        recent    requests of late, for warming
        """
        self._store, self._settings, self._journal, self._recent = store, settings, journal, recent
        self._loading, self._writing, self._following = threading.Lock(), threading.Lock(), threading.Lock()
        self._hurry = threading.Event()
        self.is_pressed: Callable[[], bool] = nobody_waits  # whether requests wait: then loading and judging does
        self.refused: dict[str, str] | None = None  # the version that was refused last, and why
        self.fault: str | None = None  # of the journal
        self.switches, self.refusals, self.left_out, self.recall = 0, 0, 0, 0.0
        self._pinned: Pinned
        self._start, self._position = 0, 0  # of the journal: from where the overlay was made, and up to where
        try:
            self._switch(load_version(current_version(store), settings, ()))
        except BaseException:
            self.close()
            raise

    def hurry(self) -> None:
        """Nothing comes back: what is being loaded or judged does not rest any more, for somebody waits for its end."""
        self._hurry.set()

    def close(self) -> None:
        """Nothing comes back."""
        if self._journal is not None:
            self._journal.close()

    @property
    def pinned(self) -> Pinned:
        """What a request that begins now sees: every write that was acknowledged to anybody on this machine."""
        if self._journal is not None and self._has_news(self._journal):
            with self._following:
                self._follow()
        return self._pinned

    @property
    def journal_bytes(self) -> int:
        """How much of the journal the live version does not hold itself."""
        return self._position - self._start

    def put(self, rows: Sequence[Mapping[str, Any]]) -> Accepted:
        """The items are in the overlay, and on disk. Raises BadRequestError; UnavailableError where overlay or journal are full."""
        write, made = put_of(self.pinned.version, rows)
        return self._written(write, made)

    def delete(self, ids: Sequence[Id]) -> Accepted:
        """The items are retrieved no more, and that is on disk. Unknown ones are no matter. Raises as `put`."""
        return self._written(delete_of(self.pinned.version, ids), None)

    def reload(self) -> Reloaded:
        """The store's CURRENT is live. Raises UnavailableError where it is refused: then what was live serves on."""
        with self._loading:
            return self._go_to(self._named_by(partial(current_version, self._store)))

    def roll_back(self) -> Reloaded:
        """The newest version that is older than the live one is live, and CURRENT.

        Raises NotFoundError where there is none; UnavailableError where it is refused
        """
        with self._loading:
            live = self._pinned.version.name
            older = [name for name in self._named_by(partial(versions, self._store)) if _number(name) < _number(live)]
            if not older:
                raise NotFoundError(f"no version older than {live} is in the store: there is nothing to roll back to")
            return self._go_to(self._store / older[-1], first=partial(set_current, self._store, older[-1]))

    def compact(self) -> Reloaded:
        """A new version of the same model, with the overlay merged in, is live; the journal keeps what older versions need.

        Raises UnavailableError where another version was published meanwhile, or the store cannot be written
        """
        with self._loading:
            journal = self._writable()
            with self._following:
                self._follow()
                pinned, position = self._pinned, self._position
            version, overlay = pinned.version, pinned.overlay
            if not overlay.slots and not len(overlay.hidden):
                return Reloaded(version=version.name, previous=version.name, changed=False)
            if overlay.sealed == len(overlay.hidden) and not overlay.slots:
                raise UnavailableError(f"a version must hold at least one item: all of {version.name} were withdrawn; put one first")
            folder = self._named_by(
                partial(self._publish_compacted, version, overlay, {"identity": journal.identity, "position": position})
            )
            reloaded = self._go_to(folder)
        self._named_by(partial(prune, self._store, self._settings.keep_versions))
        self._trim(journal)
        return reloaded

    @property
    def is_recall_low(self) -> bool:
        """Whether the live version's index finds less than it must, by the last look."""
        return self.recall < least_recall(self._pinned.version, self._settings)

    def judge(self) -> None:
        """Nothing comes back: `recall` is that of the live version's index over the queries of late. An exact one needs no look."""
        version = self._pinned.version
        if version.bundle.index.is_exact:
            return
        with unhurried(self._settings.canary_share, self._hurry, self.is_pressed):
            found = recall_of(version, judging_queries(version, self._settings, self._recent()), self._settings.canary_k)
        with self._following:
            if self._pinned.version is version:  # not swapped meanwhile
                self.recall = found

    def watch_once(self) -> None:
        """Nothing comes back: the journal was followed, and a CURRENT that changed was loaded, or refused once."""
        with self._following:
            self._follow()
        name = current_version(self._store).name
        if name != self._pinned.version.name and (self.refused is None or self.refused["version"] != name):
            self.reload()

    def _written(self, write: Write, made: Encoded | None) -> Accepted:
        journal, payload = self._writable(), _encoder.encode(write)
        with self._writing, journal.appending():
            with self._following:
                self._follow()
                pinned, position = self._pinned, self._position
            if self.fault is not None:
                raise UnavailableError(f"items cannot be written: {self.fault}")
            self._refuse_overfull(pinned.overlay, made)
            if made is not None and made.version is not pinned.version:  # swapped meanwhile: does it still fit?
                _, made = put_of(pinned.version, made.frame.to_dicts())
            journal.append(position, payload, self._settings.journal_bytes)
            with self._following:
                self._follow(payload, made)
        if self.fault is not None:
            raise UnavailableError(f"the write is on disk and not live here: {self.fault}")
        return Accepted(accepted=len(write.ids), version=pinned.version.name)

    def _refuse_overfull(self, overlay: Overlay, made: Encoded | None) -> None:
        limit = self._settings.overlay_items
        if made is not None and len(overlay.slots.keys() | made.ids) > limit:
            raise UnavailableError(
                f"at most {limit} new and changed items can wait for compaction: compact the store, then send them again"
            )

    def _follow(self, payload: bytes | None = None, made: Encoded | None = None) -> None:
        """Nothing comes back: what the journal has beyond `_position` is in the overlay. The caller holds `_following`.

        made   the items of the write `payload`, so that they need not be encoded twice
        """
        if self._journal is None:
            return
        try:
            payloads, position = self._journal.read_from(self._position)
            self._advance(payloads, position, payload, made)
            self.fault = None
        except Exception as error:  # whatever a write came to: requests go on with the overlay there is
            self._start_anew(error)

    def _advance(self, payloads: list[bytes], position: int, payload: bytes | None, made: Encoded | None) -> None:
        if not payloads:
            return
        version, overlay = self._pinned.version, self._pinned.overlay
        if payloads == [payload] and (made is None or made.version is version):
            (write,) = decoded(payloads)
            overlay = applied(version, overlay, made, list(write.ids) if made is None else [])
        else:
            overlay, left_out = replayed(version, overlay, decoded(payloads))
            self.left_out += left_out
        self._pinned, self._position = Pinned.of(version, overlay), position

    def _start_anew(self, error: Exception) -> None:
        """Nothing comes back: the overlay is made again from the whole journal, or the fault is known and the old one serves on."""
        try:
            self._pinned, self._position, self.left_out = self._replay(self._pinned.version, self._start)
            self.fault = None
        except Exception:
            self.fault = str(error) if isinstance(error, BundleError) else f"{type(error).__name__}: {error}"

    def _replay(self, version: LiveVersion, start: int) -> tuple[Pinned, int, int]:
        """(the version with its overlay, the position up to which the journal was read, items left out), from the position `start` on."""
        return self._read_on(Pinned.of(version, version.empty_overlay()), start)

    def _read_on(self, pinned: Pinned, position: int) -> tuple[Pinned, int, int]:
        """(`pinned` with what the journal holds beyond `position`, the position up to which it was read, items left out)."""
        if self._journal is None:
            return pinned, 0, 0
        payloads, end = self._journal.read_from(position)
        if not payloads:
            return pinned, end, 0
        overlay, left_out = replayed(pinned.version, pinned.overlay, decoded(payloads))
        return Pinned.of(pinned.version, overlay), end, left_out

    def _go_to(self, folder: Path, *, first: Callable[[], object] | None = None) -> Reloaded:
        """The version in `folder` is live; `first` is done once it is found good. The caller holds `_loading`."""
        previous = self._pinned.version.name
        if folder.name == previous:
            return Reloaded(version=previous, previous=previous, changed=False)
        try:
            with unhurried(self._settings.load_share, self._hurry, self.is_pressed):
                loaded = load_version(folder, self._settings, self._recent())
            if first is not None:
                first()
            self._switch(loaded)
        except Exception as error:  # whatever is wrong with it, what was live serves on
            reason = str(error) if isinstance(error, ShortlistError) else f"{type(error).__name__}: {error}"
            self.refusals += 1
            self.refused = {"version": folder.name, "reason": reason}
            raise UnavailableError(f"version {folder.name} was refused, {previous} serves on: {reason}") from error
        self.refused = None
        return Reloaded(version=folder.name, previous=previous, changed=True)

    def _switch(self, loaded: Loaded) -> None:
        """Nothing comes back: the version has the pointer, with all that the journal holds."""
        start = 0 if self._journal is None else held_by(loaded.version.bundle.facts, self._journal)
        pinned, position, left_out = self._replay(loaded.version, start)
        with self._following:
            # What came meanwhile is in it before anybody sees it: who asks for no lock has seen that write acknowledged.
            try:
                pinned, position, more = self._read_on(pinned, position)
                left_out += more
            except BundleError:  # its front was cut meanwhile
                pinned, position, left_out = self._replay(loaded.version, start)
            self._pinned, self._start, self._position, self.left_out = pinned, start, position, left_out
            self.fault = None  # all of the journal was read
            self.recall = loaded.recall
            self.switches += 1

    def _publish_compacted(self, version: LiveVersion, overlay: Overlay, held: dict[str, int]) -> Path:
        """The folder of the new version, now CURRENT, which holds the journal up to what `held` says."""
        made = compacted(version, overlay, self._store)

        def write(target: Path) -> None:  # under the store's lock: what is published now cannot be overtaken
            current = current_version(self._store)
            if current.name != version.name:
                raise BundleError(
                    f"the live version must be {version.name}, which is being compacted: got {current.name}; reload, then compact"
                )
            made.write(target, current)

        return publish_version(self._store, write, facts={**made.facts, _POSITION: held})

    def _trim(self, journal: Journal) -> None:
        """Nothing comes back: the journal begins where the first version of the store needs it."""
        with self._writing, journal.appending(), self._following:
            needed = [held_by(published_facts(self._store / name), journal) for name in versions(self._store)]
            self._follow()
            journal.trim(min(needed))

    def _writable(self) -> Journal:
        if self._journal is None:
            raise UnavailableError("the store cannot be written to from here: items cannot be put, withdrawn or compacted")
        return self._journal

    def _has_news(self, journal: Journal) -> bool:
        try:
            return self.fault is None and journal.has_news(self._position)
        except OSError as error:
            self.fault = f"{journal.path} cannot be looked at: {error.strerror}"
            return False

    @staticmethod
    def _named_by(read: Callable[[], Any]) -> Any:
        """What `read` returns, its BundleError as one that trying again may help."""
        try:
            return read()
        except BundleError as error:
            raise UnavailableError(str(error)) from error


def held_by(facts: Mapping[str, Any], journal: Journal) -> int:
    """The position up to which a version holds the journal's writes: its beginning, unless it was compacted from it."""
    held = facts.get(_POSITION)
    if isinstance(held, dict) and held.get("identity") == journal.identity:
        return int(held["position"])
    return journal.base


def _number(name: str) -> int:
    return int(name[1:])
