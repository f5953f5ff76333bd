"""The process that does one piece: `python -m lsmprobe.cluster.worker`, an order on its input.

It answers with one line of JSON: `{"done": ...}`, `{"failed": ...}` or `{"lost": ...}`, and until
then with a NUL now and then, which says that it is alive.
"""

import contextlib
import json
import logging
import os
import select
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from lsmprobe.errors import LsmprobeError, SettingsError, one_line
from lsmprobe.version import __version__

ALIVE_S = 1.0  # between two signs of life
log = logging.getLogger(__name__)


def main() -> None:
    """Read an order, do it, answer."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what libraries print goes into the log
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    order = json.loads(sys.stdin.buffer.readline())
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    watch = Watch(order, answers)
    try:
        with watch:
            answer = do(order, watch)
    except KeyboardInterrupt:
        answer = {"lost": "it was told to stop; what was done is kept"}
    except LsmprobeError as error:
        answer = {"failed": one_line(str(error))}
    except Exception as error:
        log.exception("failed")
        answer = {"failed": one_line(f"{type(error).__name__}: {error}")}
    log.info("%s", answer)
    with contextlib.suppress(BrokenPipeError):
        answers.write(json.dumps(answer).encode() + b"\n")


def do(order: dict[str, Any], watch: "Watch") -> dict[str, Any]:
    """Do the piece of an order, where this process is fit for it."""
    check_place(order)
    from lsmprobe.cluster.pieces import Piece
    from lsmprobe.cluster.stages import STAGES
    from lsmprobe.machine import choose_device
    from lsmprobe.progress import forwarded

    piece = Piece.from_json(order["piece"])
    device = choose_device(piece.config.device)  # type: ignore[attr-defined]
    log.info("%s, on %s", piece.name, device)
    return {"done": STAGES[type(piece.config)].work(piece, order, forwarded(watch.count))}


def check_place(order: dict[str, Any]) -> None:
    """Whether this process sees what whoever handed out the piece sees.

    Raises:
        SettingsError: another version, or a folder that is not the same here.
    """
    where = os.uname().nodename
    if order["version"] != __version__:
        raise SettingsError(
            f"{where} has lsmprobe {__version__}; expected {order['version']}, as where the "
            "command runs. Install the same there."
        )
    for folder, mark in (*order["folders"], (order["cwd"], None)):
        if not (Path(folder) / (mark or "")).exists():
            raise SettingsError(
                f"{where} does not see {folder} as it is where the command runs; expected a folder "
                "on a filesystem that all machines share."
            )


class Watch:
    """Says that this process lives and how far it is, and stops it once nobody waits for it."""

    def __init__(self, order: dict[str, Any], answers: Any) -> None:
        self._answers, self._order = answers, order
        self._count, self._told = 0, -1
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def count(self, count: float) -> None:
        """Hear how far the piece is."""
        self._count = int(count)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._tell()

    def _run(self) -> None:
        while not self._over.wait(ALIVE_S):
            self._tell()
            unwanted = bool(select.select([0], [], [], 0)[0])  # the end of the input
            if unwanted or Path(self._order["stop"]).exists():
                os.kill(os.getpid(), signal.SIGTERM)
                return
            try:
                self._answers.write(b"\0")
            except OSError:
                os.kill(os.getpid(), signal.SIGTERM)
                return

    def _tell(self) -> None:
        # Once all is to stop, nobody looks at it any more, nor removes it.
        if self._count != self._told and not Path(self._order["stop"]).exists():
            self._told = self._count
            with contextlib.suppress(OSError):
                Path(self._order["progress"]).write_text(str(self._told))


if __name__ == "__main__":
    main()
