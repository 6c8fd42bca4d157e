"""Errors that a user of `tidemark-airflow` can cause, each in one line: what was wrong, the value, and what to do."""

from __future__ import annotations


class UsageError(Exception):
    """A setting has an invalid value, or something blocks the command."""
