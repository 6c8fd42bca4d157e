"""Reads a chunk's file once, and checks it at the same time."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from singer_postgres.core.errors import ChunkLostError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from singer_postgres.core.wire import Changes, Chunk

_PIECE_BYTES = 2**18


def path_of(uri: str) -> Path:
    """Return the path of a manifest's entry.

    Raises:
        SingerPostgresError: the file isn't on this machine.
    """
    parts = urlsplit(uri)
    if parts.scheme != "file" or parts.netloc:
        msg = f"Chunk {uri} is not a file of this machine: tap and target must share a disk (the tap's chunk_dir)."
        raise ChunkLostError(msg)
    return Path(unquote(parts.path))


def pieces(path: Path, chunk: Chunk | Changes) -> Iterator[bytes]:
    """Yield the content of a chunk's file.

    Raises:
        SingerPostgresError: the file differs from what the tap wrote. This shows only at its end, so the transaction
            must then roll back.
    """
    length = crc32 = 0
    try:
        with path.open("rb", buffering=0) as file:
            while piece := file.read(_PIECE_BYTES):
                length += len(piece)
                crc32 = zlib.crc32(piece, crc32)
                yield piece
    except FileNotFoundError:
        msg = f"Chunk {path} is missing: tap and target must share a disk, and nothing else may remove files there."
        raise ChunkLostError(msg) from None
    if (length, crc32) != (chunk.bytes, chunk.crc32):
        msg = (
            f"Chunk {path} was damaged in transit ({length} bytes, checksum {crc32:08x}; the tap wrote {chunk.bytes} "
            f"bytes, {chunk.crc32:08x}). None of its rows was loaded; run this again, and check the disk."
        )
        raise ChunkLostError(msg)
