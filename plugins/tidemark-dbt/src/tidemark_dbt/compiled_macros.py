"""Keeps compiled macros between runs.

dbt compiles each macro that a run uses, in every process and while a model waits for it: a third of the processor time
between the first model and the last of a short run. Jinja can keep bytecode, but dbt makes its templates from strings,
for which Jinja does not look there.
"""

from __future__ import annotations

import re
from contextlib import suppress
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING

from dbt_common.clients.jinja import MACRO_DEBUGGING, MacroFuzzEnvironment
from jinja2 import FileSystemBytecodeCache
from jinja2.bccache import Bucket

if TYPE_CHECKING:
    from pathlib import Path
    from types import CodeType

_compile = MacroFuzzEnvironment.compile
# the tags of what dbt calls a macro
_MACRO = re.compile(r"\{%-?\s*(macro|materialization|test|data_test)\s")
# other versions may compile the same text to something else; Python's version is in each file
_VERSIONS = tuple(version(name) for name in ("dbt-common", "dbt-core", "Jinja2"))


def keep(directory: Path) -> None:
    """Have this process read compiled macros from a directory, and write those that are new.

    A directory that can't be used only costs the time to compile. `dbt clean` deletes it, as part of the target path.
    """
    # for its debugger, dbt compiles each macro into a file of another name
    if MACRO_DEBUGGING:
        return
    with suppress(OSError):
        directory.mkdir(parents=True, exist_ok=True)
        cache = FileSystemBytecodeCache(str(directory))
        MacroFuzzEnvironment.compile = lambda *args, **options: _compile_once(cache, *args, **options)


def _compile_once(
    cache: FileSystemBytecodeCache, environment: MacroFuzzEnvironment, source: object, *args: object, **options: object
) -> CodeType:
    """Compile a template as Jinja does, unless the cache has it."""
    compiled = partial(_compile, environment, source, *args, **options)
    # macros alone: a profile or a YAML file may hold a password, and each of its values is a template for dbt
    if type(environment) is not MacroFuzzEnvironment or not isinstance(source, str) or not _MACRO.search(source):
        return compiled()
    # anything but a template's whole text
    if any(args) or any(options.values()):
        return compiled()
    name = repr((type(environment).__qualname__, _VERSIONS, source))
    try:
        bucket = cache.get_bucket(environment, name, None, source)
    # whatever a damaged file makes pickle and marshal raise
    except Exception:  # noqa: BLE001
        bucket = Bucket(environment, cache.get_cache_key(name), cache.get_source_checksum(source))
    if bucket.code is None:
        bucket.code = compiled()
        with suppress(OSError):
            cache.set_bucket(bucket)
    return bucket.code
