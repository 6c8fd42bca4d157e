"""Delays imports that most runs don't need.

The MeltanoLabs packages import an SSH client at start, which takes a fifth of the start's time. The modules named here
are loaded at their first use, by the standard library's LazyLoader.
"""

from __future__ import annotations

import gc
import importlib.machinery
import importlib.util
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

_PUT_OFF = frozenset({"paramiko"})


class _LazyFinder:
    """Finds the modules to delay, and wraps their loaders."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in _PUT_OFF:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = importlib.util.LazyLoader(spec.loader)
        return spec


def install() -> None:
    """Delay the imports from now on; and until `finish`, search no garbage: imports make none, and it takes a tenth."""
    gc.disable()
    if not any(isinstance(finder, _LazyFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _LazyFinder())


def finish() -> None:
    """Search for garbage again, except among what the imports made."""
    gc.freeze()
    gc.enable()
