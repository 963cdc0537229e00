"""Who may do what: one key a role, from the environment, compared by hash in constant time.

    read    POST /recommend, /recommend/batch, /similar; GET /items/{id}, /metrics
    write   POST /events; DELETE /users; PUT and DELETE /items
    admin   POST /admin/reload, /admin/rollback

A key opens its own role and those above it in this list. /health, /ready and /openapi.json are open to everybody.
A server that can be reached from other machines must have a write and an admin key, or it does not start. Reading
without a read key is open everywhere; writing and admin without a key only on loopback, and not to pages in a browser.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Mapping
from enum import IntEnum

from shortlist.errors import ConfigError

VARIABLES = {"read": "SHORTLIST_READ_KEY", "write": "SHORTLIST_WRITE_KEY", "admin": "SHORTLIST_ADMIN_KEY"}
SHORTEST_KEY = 16
_SCHEME = b"bearer "


class Role(IntEnum):
    """What a request needs; each role may do all that the ones before it may."""

    ANYBODY = 0
    READ = 1
    WRITE = 2
    ADMIN = 3


class Keys:
    """The keys of a server. Holds hashes only."""

    def __init__(self, keys: Mapping[Role, str]) -> None:
        self._hashes = {role: _hash(key.encode()) for role, key in keys.items()}

    def needs_key(self, role: Role) -> bool:
        """Whether a request for `role` must bring a key."""
        return role in self._hashes

    def role_of(self, authorization: bytes | None) -> Role | None:
        """The role that an Authorization header proves; None for a missing, malformed or unknown key.

        All keys are compared, always: the time taken tells nothing.
        """
        given = authorization or b""
        digest = _hash(given[len(_SCHEME) :].strip())
        fits = [role for role, known in self._hashes.items() if hmac.compare_digest(digest, known)]
        return max(fits) if fits and given[: len(_SCHEME)].lower() == _SCHEME else None


def keys_from(environment: Mapping[str, str], *, host: str) -> Keys:
    """The keys that the environment names, for a server on `host`.

    Raises ConfigError for short keys, equal keys, and for a host that others can reach without a write and an admin key.
    """
    keys = {}
    for name, variable in VARIABLES.items():
        if variable not in environment:
            continue
        key = environment[variable]
        if len(key) < SHORTEST_KEY or not key.isascii() or key != key.strip():
            raise ConfigError(
                f"{variable} must be at least {SHORTEST_KEY} ASCII characters without spaces around them: got {len(key)}; "
                'make one with `python -c "import secrets; print(secrets.token_urlsafe(32))"`'
            )
        keys[Role[name.upper()]] = key
    if len(set(keys.values())) < len(keys):
        raise ConfigError("each role must have a key of its own: got the same key twice")
    missing = [VARIABLES[role.name.lower()] for role in (Role.WRITE, Role.ADMIN) if role not in keys]
    if missing and not is_loopback(host):
        raise ConfigError(
            f"a server that other machines can reach must have keys: got host {host!r} without {' and '.join(missing)}; "
            "set them, or bind to 127.0.0.1"
        )
    return Keys(keys)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`. Names other than localhost may resolve to anything: they are not."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _hash(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
