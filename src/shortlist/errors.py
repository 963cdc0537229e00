"""The exceptions that users meet. Each message says what must hold, what was got, and what to do."""

from __future__ import annotations


class ShortlistError(Exception):
    """Anything that is wrong with what the user brought; the command line prints it without a traceback."""


class ConfigError(ShortlistError):
    """A setting is unknown, of the wrong type, or contradicts another."""


class DataError(ShortlistError):
    """A table breaks a rule. The message names file, column and row (counted from 1, header not counted)."""


class ShapeError(ShortlistError):
    """Arrays that must fit together do not."""


class BundleError(ShortlistError):
    """A published version is damaged, incomplete or made for another program version."""


class TrainingError(ShortlistError, FloatingPointError):
    """Training left the finite numbers."""


class FetchError(ShortlistError):
    """Public data could not be had, or is not what it should be."""


class BadRequestError(ShortlistError):
    """A request asks for what this version cannot mean: another type of id, an unknown column. The caller must change it."""


class NotFoundError(ShortlistError):
    """What the request names is not there."""


class UnavailableError(ShortlistError):
    """The service cannot do it now: a full overlay, a slow database, a refused version. Trying again later may help."""
