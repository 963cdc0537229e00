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
    """A request to the service is well formed, but cannot be meant (HTTP 422)."""


class NotFoundError(ShortlistError):
    """What a request names is not there (HTTP 404)."""


class UnavailableError(ShortlistError):
    """The service cannot answer now; a later try may succeed (HTTP 503)."""
