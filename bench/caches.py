"""Makes the warehouse read from the disk again."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.integration.checkout import Checkout

_DROP_CACHES = Path("/proc/sys/vm/drop_caches")


def cool(checkout: Checkout) -> str:
    """Restart the servers and drop the system's page cache if that is allowed. Return what was done."""
    with checkout.connect("warehouse") as connection:
        # makes the stop a short one
        connection.execute("checkpoint")
    checkout.tidemark("down")
    done = "server restarted"
    with suppress(OSError):
        # dirty pages stay in the cache
        os.sync()
        _DROP_CACHES.write_text("1")
        done = "server restarted, page cache dropped"
    checkout.tidemark("up")
    return done
