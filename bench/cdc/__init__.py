"""How fast changes of a source's log are decoded and loaded, how late they come, and the same through other tools."""

import os

# programs are started as users start them, imports included, and not forked as in tests
os.environ.setdefault("TEST_FORKS", "off")
