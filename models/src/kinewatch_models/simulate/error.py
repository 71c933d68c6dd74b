"""What can go wrong; every message says what to do and needs no traceback."""

from __future__ import annotations


class SimulateError(Exception):
    """Base of all errors that `simulate` reports to its user."""


class ScenarioError(SimulateError):
    """An unreadable scenario file, or an unknown scenario, act or field; the message names it."""


class FallError(SimulateError):
    """A body that does not come to rest: another seed or style is needed."""


class EncodeError(SimulateError):
    """ffmpeg is missing or failed; the message carries its last words."""


class ClashError(SimulateError):
    """People walk into each other."""
