"""What was in memory of files, mostly of libraries, when this module was imported: a fork has none of it at first.

A process that imports libraries itself has read their files into its memory; in a fork that comes back page by page,
when it is needed. So a fork that records its memory would have less than a command that does the same. Import this last
before forking, and `touch` in the fork.
"""

import array
import mmap
import os
from contextlib import suppress
from pathlib import Path

PRESENT = 1 << 63  # of an entry of proc_pid_pagemap(5)
ENTRY = 8  # bytes


def _pages() -> list[int]:
    """Addresses of the pages that are in memory of the files that this process has mapped to read; none elsewhere."""
    found: list[int] = []
    try:
        with Path("/proc/self/pagemap").open("rb") as pagemap:
            for line in Path("/proc/self/maps").read_text().splitlines():
                span, mode, *_, path = line.split(maxsplit=5) if line.count(" ") > 4 else (line, "", "")
                if not (mode.startswith("r") and path.startswith("/") and not path.startswith("/dev/")):
                    continue
                begin, end = (int(address, 16) for address in span.split("-"))
                pagemap.seek(begin // mmap.PAGESIZE * ENTRY)
                entries = array.array("Q", pagemap.read((end - begin) // mmap.PAGESIZE * ENTRY))
                found += [begin + place * mmap.PAGESIZE for place, entry in enumerate(entries) if entry & PRESENT]
    except OSError:  # no /proc
        return []
    return found


PAGES = _pages()


def touch() -> None:
    """Has them in memory here, too; reads them as a file, so that what is no longer mapped does no harm."""
    with suppress(OSError), Path("/proc/self/mem").open("rb", buffering=0) as memory:
        for address in PAGES:
            with suppress(OSError):
                os.pread(memory.fileno(), 1, address)
