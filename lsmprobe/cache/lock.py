"""One writer at a time: the lock of a cache file."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lsmprobe.errors import CacheError

with suppress(ImportError):  # Windows has none, and writes no cache
    import fcntl

PATIENCE_S = 30.0  # that a leased writer waits for one that another command began
LOOK_S = 0.2


def check_can_write_caches() -> None:
    """Caches are read anywhere, and written where files can be locked and written at a place.

    Raises:
        CacheError: the system offers neither, as Windows.
    """
    if "fcntl" not in globals() or not hasattr(os, "pwrite"):
        raise CacheError(
            f"this system ({os.name}) cannot lock and write a cache; expected Linux or macOS (on "
            "Windows its WSL). Caches that are there can be read, probed and analysed here."
        )


@contextmanager
def sole_writer(path: Path, lease: str = "") -> Iterator[None]:
    """Turn a second writer of a file away; a courtesy only: some network filesystems lock nothing.

    The lock is that of a small file beside it, which says who writes, so that it covers the layout
    too and never stands in a reader's way.

    Args:
        path: the file.
        lease: of a command that hands out work, the same for all of its attempts. A later attempt
            takes the lock from an earlier one, which was given up, be it dead or not.

    Raises:
        CacheError: another process writes it, or the system cannot write caches.
    """
    check_can_write_caches()
    beside = path.with_name(f".{path.name}.lock")
    descriptor = _locked(beside, path, lease)
    try:
        yield
    finally:
        if descriptor is not None:
            if os.fstat(descriptor).st_nlink:  # else a later attempt has it, with a file of its own
                with suppress(OSError):
                    beside.unlink()
            os.close(descriptor)


def is_being_written(path: Path) -> bool:
    """Whether a process holds the lock of a file."""
    if "fcntl" not in globals():
        return False
    try:
        with path.with_name(f".{path.name}.lock").open("rb") as beside:
            fcntl.flock(beside, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def _locked(beside: Path, path: Path, lease: str) -> int | None:
    """A descriptor that holds the lock; None where there can be none."""
    mark = f" for {lease}"
    until = time.monotonic() + (PATIENCE_S if lease else 0)
    while True:
        try:
            descriptor = os.open(beside, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError:  # a full disk; of a read-only folder the caller will hear
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            who = os.pread(descriptor, 300, 0).decode("utf-8", "replace")
            os.close(descriptor)
            if lease and who.endswith(mark):
                beside.unlink(missing_ok=True)
                continue
            if time.monotonic() < until:
                time.sleep(LOOK_S)
                continue
            raise CacheError(
                f"{path} is being written by another process{who and f' ({who})'}. Wait for it, "
                "or use another --cache-dir."
            ) from error
        except OSError:
            pass
        if os.fstat(descriptor).st_nlink:
            break
        os.close(descriptor)  # whoever held it has just removed it
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    who = f"process {os.getpid()} on {socket.gethostname()} since {since}{mark if lease else ''}"
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, who.encode(), 0)
    return descriptor
