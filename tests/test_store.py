"""The store: one version is live, names are never given twice, and no kill leaves a mixture."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from shortlist.errors import BundleError
from shortlist.manifest import MANIFEST, verify_version
from shortlist.store import current_version, prune, publish_version, set_current, versions


def writer(number: int, size: int = 5003) -> Callable[[Path], None]:
    """Writes two files that both say `number`: a mixture of versions would show."""

    def write(folder: Path) -> None:
        (folder / "index").mkdir()
        (folder / "vectors.npy").write_bytes(f"{number:08d}".encode() * (size // 8))
        (folder / "index" / "codes.bin").write_bytes(f"{number:08d}".encode() * 101)

    return write


def publish(store: Path, number: int) -> Path:
    return publish_version(store, writer(number), facts={"number": number})


def number_of(version: Path) -> int:
    """The number that every part of a version agrees on; the version verifies."""
    numbers = {verify_version(version).facts["number"]}
    for name in ("vectors.npy", "index/codes.bin"):
        numbers.add(int((version / name).read_bytes()[:8]))
    assert len(numbers) == 1, f"{version} is a mixture: {numbers}"
    return int(numbers.pop())


def strays(store: Path) -> list[str]:
    return sorted(path.name for path in store.glob("tmp-*"))


# --- publish, current, rollback, prune


def test_a_published_version_is_live_and_verifies(tmp_path: Path) -> None:
    version = publish(tmp_path / "new" / "store", 7)
    assert version.name == "v000001" and current_version(version.parent) == version
    manifest = verify_version(version)
    assert manifest.format == 1 and manifest.facts == {"number": 7}
    # "00000007" 5003 // 8 = 625 times: 5000 bytes; 101 times: 808 bytes
    assert {name: facts.size_bytes for name, facts in manifest.files.items()} == {"vectors.npy": 5000, "index/codes.bin": 808}
    assert manifest.files["index/codes.bin"].sha256 == hashlib.sha256(b"00000007" * 101).hexdigest()
    assert json.loads((version / MANIFEST).read_bytes())["facts"] == {"number": 7}


def test_an_older_version_can_be_made_live_again(tmp_path: Path) -> None:
    first, second = publish(tmp_path, 1), publish(tmp_path, 2)
    assert versions(tmp_path) == ["v000001", "v000002"] and current_version(tmp_path) == second
    assert set_current(tmp_path, "v000001") == first == current_version(tmp_path)
    assert publish(tmp_path, 3).name == "v000003"
    assert number_of(current_version(tmp_path)) == 3


def test_a_damaged_or_unknown_version_is_not_made_live(tmp_path: Path) -> None:
    first, second = publish(tmp_path, 1), publish(tmp_path, 2)
    (first / "vectors.npy").write_bytes(b"x")
    with pytest.raises(BundleError, match=r"vectors\.npy"):
        set_current(tmp_path, "v000001")
    for name in ("v000009", "../x", "", "tmp-1", "CURRENT", "v000002\n"):
        with pytest.raises(BundleError, match="must be a version"):
            set_current(tmp_path, name)
    assert current_version(tmp_path) == second


def test_names_are_never_given_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (1, 2, 3):
        publish(tmp_path, number)
    set_current(tmp_path, "v000001")
    shutil.rmtree(tmp_path / "v000003")  # by hand, past `prune`
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert publish(tmp_path, 4).name == "v000004"
    (tmp_path / "LAST").unlink()
    (tmp_path / "v999999").mkdir()
    assert publish(tmp_path, 5).name == "v1000000"
    assert publish(tmp_path, 6).name == "v1000001"
    assert versions(tmp_path)[-3:] == ["v999999", "v1000000", "v1000001"]  # by number, not by letters


def test_prune_keeps_the_newest_and_the_live_version(tmp_path: Path) -> None:
    for number in range(1, 8):
        publish(tmp_path, number)
    set_current(tmp_path, "v000002")
    assert prune(tmp_path, keep=2) == ["v000001", "v000003", "v000004", "v000005"]
    assert versions(tmp_path) == ["v000002", "v000006", "v000007"]
    assert number_of(current_version(tmp_path)) == 2 and strays(tmp_path) == []
    assert prune(tmp_path) == []
    with pytest.raises(BundleError, match="keep must be at least 1: got 0"):
        prune(tmp_path, keep=0)


def test_a_store_without_a_live_version_says_so(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no version is live"):
        current_version(tmp_path)
    with pytest.raises(BundleError, match="nowhere"):
        versions(tmp_path / "nowhere")
    publish(tmp_path, 1)
    shutil.rmtree(tmp_path / "v000001")
    with pytest.raises(BundleError, match="'v000001' must be a version"):
        current_version(tmp_path)


@pytest.mark.parametrize("content", [b"", b"../../etc", b"/etc", b"v1", b"v000001\nv000002\n", b"\xff" * 9, b"v" + b"1" * 5000])
def test_a_hostile_pointer_is_refused(tmp_path: Path, content: bytes) -> None:
    publish(tmp_path, 1)
    (tmp_path / "CURRENT").write_bytes(content)
    with pytest.raises(BundleError, match="CURRENT must hold"):
        current_version(tmp_path)
    (tmp_path / "LAST").write_bytes(content)
    with pytest.raises(BundleError, match="LAST must hold"):
        publish(tmp_path, 2)


def test_a_symlink_is_no_pointer_and_no_version(tmp_path: Path) -> None:
    publish(tmp_path, 1)
    (tmp_path / "v000002").symlink_to(tmp_path / "v000001")
    assert versions(tmp_path) == ["v000001"]
    (tmp_path / "elsewhere").write_text("v000001\n")
    (tmp_path / "CURRENT").unlink()
    (tmp_path / "CURRENT").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="CURRENT must be a regular file"):
        current_version(tmp_path)


# --- what may be published


def test_a_second_writer_is_refused_until_the_first_is_done(tmp_path: Path) -> None:
    publish(tmp_path, 1)

    def write(folder: Path) -> None:
        for attempt in (lambda: publish(tmp_path, 9), lambda: set_current(tmp_path, "v000001"), lambda: prune(tmp_path)):
            with pytest.raises(BundleError, match=r"\.lock is held"):
                attempt()
        writer(2)(folder)

    publish_version(tmp_path, write, facts={"number": 2})
    with (tmp_path / ".lock").open("r+") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(BundleError, match=r"\.lock is held"):
            publish(tmp_path, 3)
    assert number_of(publish(tmp_path, 3)) == 3


def test_strays_of_killed_writers_are_swept(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("stays")
    store = tmp_path / "store"
    (store / "tmp-1" / "deep").mkdir(parents=True)
    (store / "tmp-2").write_text("half a pointer")
    (store / "tmp-3").symlink_to(precious)
    publish(store, 1)
    assert strays(store) == [] and (precious / "file").read_text() == "stays"


def test_an_error_of_the_publisher_comes_through_and_leaves_nothing(tmp_path: Path) -> None:
    old = publish(tmp_path, 1)

    def write(folder: Path) -> NoReturn:
        writer(2)(folder)
        raise KeyError("a bug in the caller")

    with pytest.raises(KeyError, match="a bug in the caller"):
        publish_version(tmp_path, write, facts={})
    assert current_version(tmp_path) == old and strays(tmp_path) == [] and versions(tmp_path) == ["v000001"]


def make_symlink(path: Path) -> None:
    path.symlink_to("/etc/hostname")


def make_folder_link(path: Path) -> None:
    path.symlink_to("/tmp", target_is_directory=True)


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize("make", [make_symlink, make_folder_link, make_pipe])
def test_only_regular_files_are_published_or_verified(tmp_path: Path, make: Callable[[Path], None]) -> None:
    old = publish(tmp_path, 1)

    def write(folder: Path) -> None:
        writer(2)(folder)
        make(folder / "index" / "odd")

    with pytest.raises(BundleError, match="odd must be a regular file"):
        publish_version(tmp_path, write, facts={})
    assert current_version(tmp_path) == old and strays(tmp_path) == []
    make(old / "index" / "odd")
    with pytest.raises(BundleError, match="odd must be a regular file"):
        verify_version(old)
    (old / "index" / "odd").unlink()
    (old / "vectors.npy").unlink()
    make(old / "vectors.npy")
    with pytest.raises(BundleError, match=r"vectors\.npy must be a regular file"):
        verify_version(old)


@pytest.mark.parametrize("name", [MANIFEST, "back\\slash", "new\nline", os.fsdecode(b"\xff")])
def test_names_that_clash_or_do_not_travel_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BundleError, match="must have another name"):
        publish_version(tmp_path, lambda folder: (folder / name).write_text("x"), facts={})  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, object(), b"x", Path("/"), {1: "a", "1": "b"}])
def test_facts_that_json_would_change_are_refused(tmp_path: Path, value: object) -> None:
    with pytest.raises(BundleError, match="facts must"):
        publish_version(tmp_path, writer(1), facts={"value": value})
    assert not (tmp_path / "v000001").exists()


def test_facts_come_back_as_they_were(tmp_path: Path) -> None:
    facts = {"z": [1, 2.5, None, True], "a": {"ü": "ß\n", "tiny": 5e-324, "big": 2**70, "zero": -0.0}, "empty": {}}
    assert verify_version(publish_version(tmp_path, writer(1), facts=facts)).facts == facts


def test_a_manifest_too_large_to_be_read_is_not_published(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"manifest\.json must stay below 1000000 bytes"):
        publish_version(tmp_path, writer(1), facts={"text": "x" * 1_000_000})
    assert strays(tmp_path) == []


# --- errors of the file system and kills

CALLS = ("fsync", "rename", "replace", "open", "mkdir")


def fail_at(monkeypatch: pytest.MonkeyPatch, place: int, act: Callable[[], None]) -> list[str]:
    """Makes the `place`-th call that touches the disk run `act` instead; the list fills with the calls made."""
    made: list[str] = []

    def patched(name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def call(*positional: Any, **named: Any) -> Any:
            made.append(name)
            if len(made) == place + 1:
                act()
            return real(*positional, **named)

        return call

    for name in CALLS:
        monkeypatch.setattr(os, name, patched(name))
    return made


def raise_error(number: int) -> Callable[[], None]:
    def act() -> NoReturn:
        raise OSError(number, os.strerror(number))

    return act


def test_an_error_at_any_call_leaves_the_old_version_live_and_no_tmp(tmp_path: Path) -> None:
    publish(tmp_path, 0)
    with pytest.MonkeyPatch.context() as patch:
        made = fail_at(patch, -1, lambda: None)
        publish(tmp_path, 1)
    pointer = len(made) - made[::-1].index("replace") - 1  # the call that switches CURRENT
    assert made.count("fsync") >= 8  # two files, the manifest, two folders, LAST, CURRENT, the store
    for place in range(len(made)):
        before = number_of(current_version(tmp_path))
        number = 100 + place
        with pytest.MonkeyPatch.context() as patch:
            fail_at(patch, place, raise_error(errno.EIO if place % 2 else errno.ENOSPC))
            with pytest.raises(BundleError, match="publishing to"):
                publish(tmp_path, number)
        assert number_of(current_version(tmp_path)) == (before if place <= pointer else number)
        assert strays(tmp_path) == []
        for name in versions(tmp_path):
            number_of(tmp_path / name)
    assert number_of(publish(tmp_path, 9)) == 9


def test_a_full_disk_while_the_publisher_writes_is_reported(tmp_path: Path) -> None:
    old = publish(tmp_path, 1)

    def write(folder: Path) -> NoReturn:
        (folder / "half").write_bytes(b"x" * 100)
        raise OSError(errno.ENOSPC, "No space left on device", str(folder / "half"))

    with pytest.raises(BundleError, match=r"No space left on device: .*half"):
        publish_version(tmp_path, write, facts={})
    assert current_version(tmp_path) == old and strays(tmp_path) == []


def in_child(work: Callable[[], None]) -> int:
    """The id of a forked child that does `work` and leaves without touching pytest."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return child


def publish_for_ever(store: Path) -> None:
    number = 1000
    while True:
        number += 1
        publish(store, number)
        if number % 5 == 0:
            prune(store, keep=2)


def check_after_kill(store: Path, at_least: int) -> int:
    """The live number after a kill: whole, and no older than what was live before it."""
    live = number_of(current_version(store))
    assert live >= at_least
    for name in versions(store):
        number_of(store / name)
    return live


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_kill_at_any_moment_leaves_a_whole_version_live(tmp_path: Path) -> None:
    moments = random.Random(7)
    publish(tmp_path, 0)
    publishing_when_killed = 0
    for kill in range(60):
        before = number_of(current_version(tmp_path))
        child = in_child(lambda: publish_for_ever(tmp_path))
        time.sleep(moments.uniform(0.001, 0.03))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        check_after_kill(tmp_path, min(before, 1000))
        publishing_when_killed += bool(strays(tmp_path))
        assert number_of(publish(tmp_path, kill)) == kill == number_of(current_version(tmp_path))
        assert strays(tmp_path) == []
        prune(tmp_path, keep=1)
    assert publishing_when_killed > 5  # the kills did hit writers in the middle of their work


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_kill_at_every_call_leaves_the_old_version_or_the_new_one(tmp_path: Path) -> None:
    publish(tmp_path, 0)
    with pytest.MonkeyPatch.context() as patch:
        made = fail_at(patch, -1, lambda: None)
        publish(tmp_path, 1)
    seen = set()
    for place in range(len(made)):
        publish(tmp_path, 1)

        def work(place: int = place) -> None:
            with pytest.MonkeyPatch.context() as patch:
                fail_at(patch, place, lambda: os.kill(os.getpid(), signal.SIGKILL))
                publish(tmp_path, 2)

        _, status = os.waitpid(in_child(work), 0)
        assert os.WIFSIGNALED(status)
        live = check_after_kill(tmp_path, 1)
        seen.add(live)
        assert number_of(publish(tmp_path, 3)) == 3 and strays(tmp_path) == []
        prune(tmp_path, keep=1)
    assert seen == {1, 2}


def test_what_is_synced_is_synced_before_it_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[tuple[str, str]] = []
    real_fsync, real_rename, real_replace = os.fsync, os.rename, os.replace

    def fsync(descriptor: int) -> None:
        log.append(("sync", Path(os.readlink(f"/proc/self/fd/{descriptor}")).name))
        real_fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", lambda old, new: (log.append(("rename", Path(new).name)), real_rename(old, new)))
    monkeypatch.setattr(os, "replace", lambda old, new: (log.append(("rename", Path(new).name)), real_replace(old, new)))
    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc to name open files")
    store = tmp_path / "store"
    publish(store, 1)
    steps = [name if not name.startswith("tmp-") else "tmp" for _, name in log]
    assert steps[0] == tmp_path.name  # the new store itself
    assert sorted(steps[1:3]) == ["codes.bin", "vectors.npy"]
    # manifest, folders from the inside, then: LAST (file, rename, parent), the version (rename, parent), CURRENT likewise
    assert steps[3:] == [MANIFEST, "index", "tmp", "tmp", "LAST", "store", "v000001", "store", "tmp", "CURRENT", "store"]
