"""A message is whole, whatever interrupts the process that writes it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from tests.conftest import REPOSITORY

SOURCE = REPOSITORY / "plugins/singer-postgres/src"
BYTES = 300_000
WRITE = f"""
import sys
from singer_postgres.singer import whole_messages
whole_messages.buffer_output()
sys.stdout.write("x" * {BYTES} + "\\n")
sys.stdout.flush()
"""


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_process_that_is_stopped_while_it_writes_loses_nothing_of_a_message(unbuffered):
    with subprocess.Popen(
        [sys.executable, "-c", WRITE],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(SOURCE), "PYTHONUNBUFFERED": unbuffered},
    ) as child:
        assert child.stdout
        # by now the pipe is full, and it waits for a reader
        time.sleep(1)
        os.kill(child.pid, signal.SIGSTOP)
        while psutil.Process(child.pid).status() != psutil.STATUS_STOPPED:
            time.sleep(0.01)
        os.kill(child.pid, signal.SIGCONT)
        time.sleep(0.2)
        assert len(child.stdout.read()) == BYTES + 1
    assert child.returncode == 0
