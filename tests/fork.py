"""Replaces a program that another program starts: has it forked instead of started afresh; see forks.py.

    python -IS fork.py SOCKET PROGRAM [ARGUMENT …]

When one of the two ends, the other ends too.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from pathlib import Path

address, *command = sys.argv[1:]
umask = os.umask(0)
os.umask(umask)
server = socket.socket(socket.AF_UNIX)
server.connect(address)
request = [command, [], str(Path.cwd()), dict(os.environ), umask]
socket.send_fds(server, [f"{json.dumps(request)}\n".encode()], [0, 1, 2])
# only the program itself must hold its standard streams, so that their end is seen
nothing = os.open(os.devnull, os.O_RDWR)
for stream in (0, 1, 2):
    os.dup2(nothing, stream)
with server.makefile("rb", buffering=0) as answers:
    pid = int(answers.readline())
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: os.kill(pid, number))
    status = int(answers.readline())
if status < 0:
    signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
os._exit(status)
