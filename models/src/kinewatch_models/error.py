"""What the command line tells in one line."""

from __future__ import annotations


class ToolError(Exception):
    """A known failure; the message names the offender and says what to do. Exit code 2, no traceback."""
