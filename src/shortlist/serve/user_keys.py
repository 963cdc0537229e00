"""User ids as keys that say nothing without the secret: HMAC-SHA256, so that ids cannot be found again by trying them all."""

from __future__ import annotations

import hmac
import os
import secrets
from pathlib import Path

from shortlist.disk import open_regular
from shortlist.errors import ConfigError
from shortlist.serve.ids import Id

SECRET_BYTES = 32


class UserKeys:
    """The keys under one secret."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def of(self, user: Id) -> bytes:
        """(32 bytes) the key of a user; 7 and "7" are two users."""
        kind = b"i" if isinstance(user, int) else b"s"
        return hmac.digest(self._secret, kind + str(user).encode("utf-8", "surrogatepass"), "sha256")


def open_user_keys(path: Path) -> UserKeys:
    """The keys under the secret in the file `path`; a new secret, readable by its owner alone, where there is none.

    Another secret makes strangers of all users: keep the file, apart from the events, and replace it to forget everybody.
    Raises ConfigError for a secret that is too short, or that can neither be read nor made
    """
    try:
        if not path.exists():
            _write_secret(path)
        with open_regular(path) as file:
            secret = file.read(4096).strip()
    except OSError as error:
        raise ConfigError(f"{path} must hold a secret, or a folder where one can be made: {error.strerror}; name another file") from None
    if len(secret) < SECRET_BYTES:
        raise ConfigError(f"{path} must hold a secret of at least {SECRET_BYTES} bytes: got {len(secret)}; remove it, and one is made")
    return UserKeys(secret)


def _write_secret(path: Path) -> None:
    """Nothing comes back: the file is there and whole, made by this process or by another at the same time."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        os.write(descriptor, secrets.token_hex(SECRET_BYTES).encode("ascii"))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    try:
        os.link(beside, path)  # the first wins
    except FileExistsError:
        pass
    finally:
        beside.unlink()
