"""What a user of `tidemark-airflow` can cause. Each error is one line: what was wrong, with which value, what to do."""

from __future__ import annotations


class UsageError(Exception):
    """A setting has a value that can't be used, or something is in the way."""
