"""What was made of the last few files, for as long as those files stay as they are."""

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from lsmprobe.errors import AudioError

# A younger file may change again within one tick of the file system's clock.
SETTLED_NS = 100_000_000
N_LOCKS = 64
Made = TypeVar("Made")


class Kept(Generic[Made]):
    """Values of at most a total size, the ones asked for last; several threads may ask.

    A file is known by its path, place on the disk, size and times. If any of these changes, the
    value is made again.

    Args:
        most: the total size of what is kept.
        size: of a value.
    """

    def __init__(self, most: int, size: Callable[[Made], int] = lambda _: 1) -> None:
        self._most, self._size = most, size
        self._made: OrderedDict[tuple[object, ...], Made] = OrderedDict()
        self._lock = threading.Lock()
        self._making = [threading.Lock() for _ in range(N_LOCKS)]

    def get(self, path: str | os.PathLike[str], make: Callable[[], Made]) -> Made:
        """What `make` makes of the file, or made of it before.

        Raises:
            AudioError: the file changed in the meantime.
            OSError: there is no such file.
        """
        file = _signature(path)
        with self._making[hash(file) % N_LOCKS]:  # a file that two threads want is made once
            with self._lock:
                if file in self._made:
                    self._made.move_to_end(file)
                    return self._made[file]
            made = make()
            if _signature(path) != file:
                raise AudioError(f"{os.fspath(path)!r} changed while it was read; run again.")
            if time.time_ns() - os.stat(path).st_ctime_ns > SETTLED_NS:  # noqa: PTH116 as below
                self._keep(file, made)
            return made

    def _keep(self, file: tuple[object, ...], made: Made) -> None:
        if self._size(made) > self._most:
            return
        with self._lock:
            self._made[file] = made
            while sum(map(self._size, self._made.values())) > self._most:
                self._made.popitem(last=False)


def _signature(path: str | os.PathLike[str]) -> tuple[object, ...]:
    found = os.stat(path)  # noqa: PTH116 a name may be bytes that are no text
    times = found.st_mtime_ns, found.st_ctime_ns
    return os.fspath(path), found.st_dev, found.st_ino, found.st_size, *times
