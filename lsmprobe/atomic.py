"""Files that are finished as soon as they are there."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

with suppress(ImportError):  # Windows has none
    import fcntl


def write_then_rename(path: Path, content: bytes) -> None:
    """Write a file beside its place, make it durable, then give it its name.

    Whoever looks finds the file as it was, or complete; a kill in here leaves at most a hidden file
    that nobody takes for another.

    Raises:
        OSError: the file cannot be written; the one that was there is unharmed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with beside.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Have other processes wait that do the same in a folder, so that files in it go together.

    A courtesy only: some systems, and some network filesystems, lock nothing.

    Raises:
        OSError: the folder cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if "fcntl" not in globals():
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
