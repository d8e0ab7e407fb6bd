"""Has files in the page cache, or not at all, and makes sure of it.

    python3 bench/gpu/page_cache.py cold|warm FILE …

For files of one's own; needs no further rights: the kernel drops clean pages of a file when it is
told that they aren't needed, and tells by mincore which are there, which reading would change. Exit
code 1 where the files are not as they should be.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys

BLOCK = 16 << 20
SHARE_COLD_MAX = 0.02
SHARE_WARM_MIN = 0.98


def make_cold(fd: int) -> None:
    """Drop the file's pages."""
    os.fsync(fd)  # a page that isn't on the disk yet can't be dropped
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


def make_warm(fd: int) -> None:
    """Read the file once."""
    at = 0
    while data := os.pread(fd, BLOCK, at):
        at += len(data)


def cached_share(fd: int) -> float:
    """Of a file's pages, how many are in memory."""
    size = os.fstat(fd).st_size
    if size == 0:
        return 0.0
    pages = -(-size // mmap.PAGESIZE)
    found = (ctypes.c_ubyte * pages)()
    libc = ctypes.CDLL(None, use_errno=True)
    # Private and writable, because ctypes takes no address of what may only be read; nothing is.
    with mmap.mmap(fd, size, flags=mmap.MAP_PRIVATE) as mapped:
        start = ctypes.c_ubyte.from_buffer(mapped)
        failed = libc.mincore(ctypes.byref(start), ctypes.c_size_t(size), found)
        del start
        if failed:
            raise OSError(ctypes.get_errno(), "mincore")
    return sum(each & 1 for each in found) / pages


def main(argv: list[str]) -> int:
    """Do it, look, and say how it came out."""
    if len(argv) < 2 or argv[0] not in ("cold", "warm"):
        print("usage: page_cache.py cold|warm FILE …", file=sys.stderr)
        return 2
    cold = argv[0] == "cold"
    for path in argv[1:]:
        fd = os.open(path, os.O_RDONLY)
        try:
            (make_cold if cold else make_warm)(fd)
            share = cached_share(fd)
        finally:
            os.close(fd)
        if share > SHARE_COLD_MAX if cold else share < SHARE_WARM_MIN:
            wanted = "no page" if cold else "all pages"
            print(
                f"Expected {wanted} of {path} in the page cache, got {share:.0%}: who else reads "
                "it, or is there too little memory?",
                file=sys.stderr,
            )
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
