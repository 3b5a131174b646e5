"""A folder as a tar archive, made while it is sent."""

import tarfile
from collections.abc import Iterator
from pathlib import Path

_PIECE = 256 * 1024


def packed(folder: Path) -> Iterator[bytes]:
    """Yield a tar archive (POSIX pax) of the regular files below a folder, in order of their names."""
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_file():
            continue
        info = tarfile.TarInfo(str(Path(folder.name) / path.relative_to(folder)))
        with path.open("rb") as stream:
            info.size = path.stat().st_size
            info.mtime = int(path.stat().st_mtime)
            yield info.tobuf(tarfile.PAX_FORMAT)
            left = info.size
            while left and (piece := stream.read(min(_PIECE, left))):
                left -= len(piece)
                yield piece
            yield b"\0" * (left + -info.size % tarfile.BLOCKSIZE)
    yield b"\0" * (2 * tarfile.BLOCKSIZE)
