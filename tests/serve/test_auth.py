"""Keys: who may do what, where a server may listen without them."""

from __future__ import annotations

import pytest
from small_http import asked, small_app

from shortlist.errors import ConfigError
from shortlist.serve.keys import Keys, Role, is_loopback, keys_from
from shortlist.serve.routes import ROUTES, Route

KEYS = {Role.READ: "read-key-0123456789", Role.WRITE: "write-key-0123456789", Role.ADMIN: "admin-key-0123456789"}
BODIES = {
    "recommend": {},
    "recommend_batch": {"requests": [{}]},
    "similar": {"item": "i01"},
    "record_events": {"events": [{"user": 1, "item": "i01"}]},
    "forget_user": {"user": 1},
    "put_items": {"items": [{"item_id": "i01"}]},
    "delete_items": {"ids": ["i22"]},
}


def status_of(route: Route, keys: dict[Role, str], authorization: str | None, **headers: str) -> int:
    given = {**headers, **({"Authorization": authorization} if authorization is not None else {})}
    app = small_app(keys=Keys(keys))
    return asked(app, route.method, route.path.replace("{id}", "i03"), BODIES.get(route.name), headers=given).status


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_each_route_opens_to_its_own_role_and_those_above(route: Route) -> None:
    for role, key in KEYS.items():
        status = status_of(route, KEYS, f"Bearer {key}")
        assert status == (403 if role < route.role else 503 if route.name == "rollback" else 200), role
    without = 200 if route.role is Role.ANYBODY else 401
    assert status_of(route, KEYS, None) == without


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong-key-0123456789",
        "Basic cmVhZA==",
        KEYS[Role.READ],
        "Bearer " + KEYS[Role.READ][:-1],
        "Bearer \xff",
    ],
)
def test_anything_but_a_known_key_is_refused(authorization: str) -> None:
    app = small_app(keys=Keys(KEYS))
    reply = asked(app, "POST", "/recommend", {}, headers={"Authorization": authorization})
    assert reply.status == 401 and reply.headers["www-authenticate"] == "Bearer"
    assert "key for read" in reply.json["message"] and KEYS[Role.READ] not in reply.body.decode()


def test_the_scheme_is_read_without_regard_to_case() -> None:
    assert status_of(ROUTES[0], KEYS, f"bEARER {KEYS[Role.READ]}") == 200


def test_without_keys_everything_is_open_but_writes_not_to_a_browsers_page() -> None:
    for route in ROUTES:
        status = status_of(route, {}, None)
        assert status == (503 if route.name == "rollback" else 200)
        from_page = status_of(route, {}, None, Origin="http://evil.example")
        assert from_page == (403 if route.role > Role.READ else status)


def test_a_key_is_checked_before_the_body_is_looked_at() -> None:
    app = small_app(keys=Keys(KEYS))
    assert asked(app, "PUT", "/items", b"not json", headers={"content-type": "text/plain"}).status == 401


def test_a_server_that_others_reach_must_have_a_write_and_an_admin_key() -> None:
    for host in ("0.0.0.0", "::", "10.0.0.7", "example.org", ""):
        with pytest.raises(ConfigError, match="without SHORTLIST_WRITE_KEY and SHORTLIST_ADMIN_KEY"):
            keys_from({}, host=host)
        with pytest.raises(ConfigError, match="without SHORTLIST_ADMIN_KEY;"):
            keys_from({"SHORTLIST_WRITE_KEY": KEYS[Role.WRITE]}, host=host)
    both = {"SHORTLIST_WRITE_KEY": KEYS[Role.WRITE], "SHORTLIST_ADMIN_KEY": KEYS[Role.ADMIN]}
    keys = keys_from(both, host="0.0.0.0")
    assert keys.needs_key(Role.WRITE) and keys.needs_key(Role.ADMIN) and not keys.needs_key(Role.READ)


@pytest.mark.parametrize(
    ("host", "is_own"), [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("127.0.0.1.example", False)]
)
def test_loopback_is_told_from_the_address_itself(host: str, is_own: bool) -> None:
    assert is_loopback(host) is is_own


@pytest.mark.parametrize("key", ["", "short", " padded-key-0123456789", "schlüssel-0123456789"])
def test_a_key_that_is_easily_guessed_or_mangled_is_refused(key: str) -> None:
    with pytest.raises(ConfigError, match=f"SHORTLIST_WRITE_KEY must be at least 16 ASCII characters.*got {len(key)};"):
        keys_from({"SHORTLIST_WRITE_KEY": key}, host="127.0.0.1")


def test_two_roles_may_not_share_a_key() -> None:
    with pytest.raises(ConfigError, match="key of its own"):
        keys_from({"SHORTLIST_WRITE_KEY": KEYS[Role.READ], "SHORTLIST_ADMIN_KEY": KEYS[Role.READ]}, host="127.0.0.1")
