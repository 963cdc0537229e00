"""Events: durable, once each, newest first found, keyed users; the same promises from SQLite and from PostgreSQL."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from shortlist.errors import BadRequestError, ConfigError, UnavailableError
from shortlist.serve.events import EventStore, Recent, sqlite_url
from shortlist.serve.messages import Event
from shortlist.serve.user_keys import UserKeys, open_user_keys

KEYS = UserKeys(b"k" * 32)


def program(name: str) -> str:
    """The path of one of PostgreSQL's programs; Debian keeps them off the path."""
    found = [shutil.which(name), *map(str, sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True))]
    path = next((place for place in found if place), None)
    if path is None and os.environ.get("CI") == "true":
        pytest.fail(f"PostgreSQL must be installed where CI=true: there is no {name}")
    return path or pytest.skip(f"no PostgreSQL: there is no {name}")


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a private PostgreSQL server, reached by a socket in its own folder."""
    with tempfile.TemporaryDirectory(prefix="pg-") as name:
        folder, as_user = Path(name), []
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            shutil.chown(folder, "nobody")
            as_user = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
        data = folder / "data"

        def run(tool: str, *arguments: str) -> None:
            subprocess.run([*as_user, program(tool), "-D", str(data), *arguments], check=True, capture_output=True, timeout=120, cwd=folder)

        run("initdb", "--auth=trust", "--username=shortlist", "--no-sync", "--locale=C", "--encoding=UTF8")
        options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c shared_buffers=16MB -c max_connections=40"
        run("pg_ctl", "-w", "-t", "60", "-o", options, "-l", str(folder / "log"), "start")
        yield f"postgresql+psycopg://shortlist@/postgres?host={folder}"
        run("pg_ctl", "-m", "immediate", "-w", "stop")


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'events.sqlite'}"
        return
    found = request.getfixturevalue("postgres")
    engine = sa.create_engine(found)
    with engine.begin() as connection:
        connection.execute(sa.text("DROP TABLE IF EXISTS events"))
    engine.dispose()
    yield found


@pytest.fixture
def store(url: str) -> Iterator[EventStore]:
    opened = EventStore(url, KEYS, write_s=5.0)
    yield opened
    opened.close()


def test_the_newest_events_of_a_user_come_oldest_first(store: EventStore) -> None:
    assert store.record([Event(user=7, item=f"i{number}", time=100.0 + number) for number in range(9)]) == 9
    assert store.record([Event(user=8, item="other", time=500.0)]) == 1
    assert store.newest(7, 3) == Recent(["i6", "i7", "i8"], [106.0, 107.0, 108.0])
    assert store.newest(9, 3) == Recent([], [])


def test_time_orders_events_and_at_one_time_the_order_of_arrival(store: EventStore) -> None:
    store.record([Event(user="u", item=3, time=3.0), Event(user="u", item=1, time=1.0)])
    store.record([Event(user="u", item=2, time=2.0), Event(user="u", item=30, time=3.0)])
    assert store.newest("u", 9).items == [1, 2, 3, 30]
    assert store.newest("u", 2).items == [3, 30]


def test_an_event_without_a_time_is_of_now(store: EventStore) -> None:
    before = time.time()
    store.record([Event(user=1, item="x")])
    assert before <= store.newest(1, 1).times[0] <= time.time()


def test_an_event_sent_twice_counts_once_and_only_for_its_user(store: EventStore) -> None:
    event = Event(user=1, item="x", time=5.0, id="e1")
    assert store.record([event, event]) == 1
    assert store.record([event, Event(user=2, item="x", time=5.0, id="e1"), Event(user=1, item="x", time=6.0)]) == 2
    assert store.newest(1, 9).times == [5.0, 6.0]


def test_integers_and_strings_stay_what_they_are_and_are_different_users(store: EventStore) -> None:
    store.record([Event(user=7, item=-5, time=1.0), Event(user="7", item="-5", time=1.0), Event(user=7, item="ü i7", time=2.0)])
    assert store.newest(7, 9).items == [-5, "ü i7"]
    assert store.newest("7", 9).items == ["-5"]


def test_events_are_there_for_another_process_and_after_reopening(store: EventStore, url: str) -> None:
    store.newest(7, 1)
    other = EventStore(url, KEYS, write_s=5.0)
    other.record([Event(user=7, item="x", time=1.0)])
    other.close()
    assert store.newest(7, 9).items == ["x"]


@pytest.mark.parametrize(
    "moment",
    [-1.0, float("nan"), float("inf"), pytest.param(time.time() + 2 * 86_400, id="in two days")],
)
def test_a_time_that_cannot_be_is_refused_and_nothing_of_its_batch_is_stored(store: EventStore, moment: float) -> None:
    with pytest.raises(BadRequestError, match="seconds since 1970"):
        store.record([Event(user=1, item="x", time=1.0), Event(user=1, item="y", time=moment)])
    assert store.newest(1, 9).items == []


@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
def test_text_that_a_database_cannot_hold_is_refused(store: EventStore, text: str) -> None:
    with pytest.raises(BadRequestError, match="an event's item"):
        store.record([Event(user=1, item=text)])
    with pytest.raises(BadRequestError, match="an event's id"):
        store.record([Event(user=1, item="x", id=text)])
    assert store.record([Event(user=text, item="x")]) == 1  # a user is only hashed


def test_a_forgotten_user_has_no_past_but_a_future(store: EventStore) -> None:
    store.record([Event(user=1, item="x", time=1.0), Event(user=2, item="y", time=1.0)])
    assert store.forget(1) == 1 and store.forget(1) == 0
    assert store.newest(1, 9) == Recent([], [], forgotten=True)
    store.record([Event(user=1, item=f"z{number}", time=2.0 + number) for number in range(5)])
    assert store.newest(1, 3) == Recent(["z2", "z3", "z4"], [4.0, 5.0, 6.0], forgotten=True)
    assert store.newest(2, 9).items == ["y"]
    assert store.forget(1) == 5


def test_no_raw_user_id_is_stored(store: EventStore, url: str) -> None:
    store.record([Event(user="alice@example.org", item="x", time=1.0), Event(user=1234567, item="x", time=1.0)])
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        rows = connection.execute(sa.text("SELECT * FROM events")).fetchall()
    engine.dispose()
    stored = b"".join(bytes(value) if isinstance(value, (bytes, memoryview)) else str(value).encode() for row in rows for value in row)
    assert len(rows) == 2 and b"alice" not in stored and b"1234567" not in stored


def test_several_threads_may_write_and_read(store: EventStore) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def work(number: int) -> int:
        store.record([Event(user=number % 3, item=number, time=float(number))])
        return len(store.newest(number % 3, 50).items)

    with ThreadPoolExecutor(8) as pool:
        assert min(pool.map(work, range(40))) >= 1
    assert [len(store.newest(user, 50).items) for user in range(3)] == [14, 13, 13]


def test_a_lost_connection_is_made_anew(store: EventStore, url: str) -> None:
    store.record([Event(user=1, item="x", time=1.0)])
    store.newest(1, 1)
    store._reading.cursor.close()
    with pytest.raises(UnavailableError, match="events could not be read"):
        store.newest(1, 1)
    assert store.newest(1, 1).items == ["x"]


def test_a_database_that_is_locked_refuses_in_time_and_does_not_stop_readers(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'events.sqlite'}"
    store = EventStore(url, KEYS, write_s=0.2)
    store.record([Event(user=1, item="x", time=1.0)])
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        started = time.monotonic()
        with pytest.raises(UnavailableError, match="events could not be stored: OperationalError"):
            store.record([Event(user=1, item="y", time=2.0)])
        assert time.monotonic() - started < 5
        assert store.newest(1, 9).items == ["x"]
    engine.dispose()
    store.close()


def test_a_database_that_is_away_is_found_when_it_is_back(tmp_path: Path) -> None:
    store = EventStore(f"sqlite:///{tmp_path / 'later' / 'events.sqlite'}", KEYS, write_s=0.2)
    with pytest.raises(UnavailableError):
        store.newest(1, 1)
    (tmp_path / "later").mkdir()
    assert store.record([Event(user=1, item="x", time=1.0)]) == 1
    assert store.newest(1, 1).items == ["x"]
    store.close()


def test_unknown_databases_are_refused_without_repeating_a_password() -> None:
    with pytest.raises(ConfigError, match="SQLite or PostgreSQL: got 'mysql'"):
        EventStore("mysql://someone:secret@host/name", KEYS, write_s=1.0)
    with pytest.raises(ConfigError, match="must be a database URL") as refused:
        EventStore("secret", KEYS, write_s=1.0)
    assert "secret" not in str(refused.value)


def test_a_secret_is_made_once_and_read_again(tmp_path: Path) -> None:
    first = open_user_keys(tmp_path / "user.key")
    assert (tmp_path / "user.key").stat().st_mode & 0o777 == 0o600
    assert first.of(7) == open_user_keys(tmp_path / "user.key").of(7) != open_user_keys(tmp_path / "other.key").of(7)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.key", "user.key"]
    (tmp_path / "short.key").write_text("abc")
    with pytest.raises(ConfigError, match="at least 32 bytes: got 3"):
        open_user_keys(tmp_path / "short.key")


def test_a_secret_that_can_neither_be_read_nor_made_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must hold a secret, or a folder where one can be made: No such file or directory"):
        open_user_keys(tmp_path / "nowhere" / "user.key")


def test_a_path_of_any_letters_is_a_database(tmp_path: Path) -> None:
    path = tmp_path / "a?b#c%20d e" / "events.sqlite"
    path.parent.mkdir()
    store = EventStore(sqlite_url(path), KEYS, write_s=1.0)
    assert store.record([Event(user=1, item="x", time=1.0)]) == 1 and path.exists()
    store.close()


def test_keys_have_the_published_values() -> None:
    # printf 'i7' | openssl dgst -sha256 -hmac kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk
    assert KEYS.of(7).hex() == "79502ed90e455439d6fa2cb49a4737106e33c99607406136debcf03911891051"
