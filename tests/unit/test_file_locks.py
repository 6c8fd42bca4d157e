from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tidemark.errors import BusyError
from tidemark.project.file_locks import hold, share


def test_a_second_holder_learns_who_holds_the_lock_and_it_is_free_afterwards(tmp_path):
    lock = tmp_path / "deep" / "a.lock"
    refused = pytest.raises(BusyError, match=rf"pid {os.getpid()}\) is running")
    with hold(lock, doing="running"), refused, hold(lock, doing="running"):
        pass
    with hold(lock, doing="running"):
        pass


def test_a_child_that_inherits_the_lock_keeps_it(tmp_path):
    lock = tmp_path / "a.lock"
    with hold(lock, doing="running") as descriptor:
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[descriptor])
        share(descriptor, child.pid)
    with pytest.raises(BusyError, match="is running"), hold(lock, doing="running"):
        pass
    child.communicate(b"\n")
    with hold(lock, doing="running"):
        pass


def test_shared_holders_exclude_an_exclusive_one(tmp_path):
    lock = tmp_path / "a.lock"
    refused = pytest.raises(BusyError, match=rf"pid {os.getpid()}\) is running")
    sharing = hold(lock, doing="running", shared=True), hold(lock, doing="running", shared=True)
    with sharing[0], sharing[1], refused, hold(lock, doing="running"):
        pass
    with hold(lock, doing="running"), refused, hold(lock, doing="running", shared=True):
        pass
