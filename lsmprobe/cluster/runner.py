"""Hand out pieces, count how far they are, hand out again what was lost."""

import logging
import os
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm.contrib.logging import logging_redirect_tqdm

from lsmprobe.cluster.engines import Engine, EngineError
from lsmprobe.cluster.pieces import Piece
from lsmprobe.cluster.task import PATIENCE_S, do_piece
from lsmprobe.errors import LsmprobeError, counted
from lsmprobe.progress import Progress
from lsmprobe.version import __version__

TRAVELS = ("LSMPROBE_", "HF_", "PYTHONPATH", "OMP_NUM_THREADS")  # of the environment
STAYS = ("HF_TOKEN",)
LOST = 5  # how often a piece whose process ends without an answer is handed out
LOOK_S = 0.5
log = logging.getLogger(__name__)


class PieceError(LsmprobeError):
    """A piece that failed on the machine that did it."""


@contextmanager
def shared_by_all(folder: Path, folders: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """What the orders of one command have in common; every worker must see these folders.

    Args:
        folder: the logs go into its folder `logs`.
        folders: where pieces write.

    What a command of this machine that was killed has left there is removed.
    """
    lease = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
    logs = (folder / "logs" / lease).resolve()
    logs.mkdir(parents=True)
    marks = []
    for each in dict.fromkeys([folder, *folders]):
        each.mkdir(parents=True, exist_ok=True)
        for mark in each.resolve().glob(".*.mark"):
            if _was_killed(mark):
                _clear(mark)
        marks.append(each.resolve() / f".{lease}.mark")
        marks[-1].write_text(f"{os.uname().nodename} {os.getpid()}")
    environment = {k: v for k, v in os.environ.items() if k.startswith(TRAVELS) and k not in STAYS}
    stop = logs / "stop"
    try:
        yield {
            "lease": lease,
            "version": __version__,
            "cwd": str(Path.cwd()),
            "environment": environment,
            "folders": [[str(mark.parent), mark.name] for mark in marks],
            "logs": str(logs),
            "stop": str(stop),
            "patience_s": PATIENCE_S,
        }
    except BaseException:
        stop.touch()  # pieces that run on other machines end soon
        raise
    finally:
        for mark in marks:
            _clear(mark)


def _was_killed(mark: Path) -> bool:
    """Whether a mark is that of a command of this machine which is gone."""
    try:
        host, _, pid = mark.read_text().partition(" ")
    except OSError:  # another command has just removed it
        return False
    if host != os.uname().nodename or not pid.isdecimal():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _clear(mark: Path) -> None:
    """Remove a command's mark, and what lies beside its logs."""
    logs = mark.parent / "logs" / mark.name.removeprefix(".").removesuffix(".mark")
    for left in (*logs.glob("*.progress"), *logs.glob("*.npz"), mark):
        left.unlink(missing_ok=True)


def run_pieces(
    pieces: Sequence[Piece],
    engine: Engine,
    shared: dict[str, Any],
    *,
    progress: Progress,
    run: Callable[[dict[str, Any]], dict[str, Any]] = do_piece,
    **bar_settings: Any,
) -> tuple[dict[str, Any], dict[str, Exception]]:
    """Have every piece done; what each answered, and by what failed its error, both by name.

    Args:
        pieces: what there is to do.
        engine: what does it.
        shared: see `shared_by_all`.
        progress: how it is shown: one bar for all of them.
        run: what the executor calls with each order.
        bar_settings: of the bar: its unit.

    Raises:
        LsmprobeError: the engine is gone.
    """
    log.info("%s; %s; logs: %s", counted(len(pieces), "piece"), engine.said, shared["logs"])
    orders = [_order(piece, number, engine, shared) for number, piece in enumerate(pieces)]
    attempts: Counter[int] = Counter()
    answers: dict[str, Any] = {}
    failures: dict[str, Exception] = {}
    waiting: dict[Future[dict[str, Any]], int] = {}

    def hand_out(number: int) -> None:
        attempts[number] += 1
        waiting[engine.executor.submit(run, orders[number])] = number

    with (
        logging_redirect_tqdm(),
        progress(total=sum(piece.size for piece in pieces), **bar_settings) as bar,
    ):
        try:
            for number in range(len(pieces)):
                hand_out(number)
            while waiting:
                engine.check()
                done, _ = wait(waiting, timeout=LOOK_S, return_when="FIRST_COMPLETED")
                for future in done:
                    piece = pieces[number := waiting.pop(future)]
                    answer = _answer(future)
                    if "done" in answer:
                        answers[piece.name] = answer["done"]
                    elif "lost" in answer and attempts[number] < LOST:
                        log.warning("%s is handed out again: %s", piece.name, answer["lost"])
                        hand_out(number)
                        continue
                    else:
                        why = answer.get("failed") or f"it was lost {LOST} times: {answer['lost']}"
                        failures[piece.name] = PieceError(f"{why} Log: {orders[number]['log']}")
                    orders[number]["over"] = True
                bar.set_postfix({"failed": len(failures)} if failures else {}, refresh=False)
                bar.update(_far(pieces, orders) - bar.n)
        except EngineError:  # there is nobody whom it could be told
            raise
        except BaseException:
            for future in waiting:
                future.cancel()
            Path(shared["stop"]).touch()
            raise
    return answers, failures


def _order(piece: Piece, number: int, engine: Engine, shared: dict[str, Any]) -> dict[str, Any]:
    """All that a worker is told: plain values."""
    safe = "".join(each if each.isalnum() or each in "-_." else "-" for each in piece.name)
    named = Path(shared["logs"]) / f"{number:04d}-{safe[:100]}"
    return {
        **shared,
        "piece": piece.to_json(),
        "threads": engine.threads,
        "log": f"{named}.log",
        "progress": f"{named}.progress",
    }


def _answer(future: "Future[dict[str, Any]]") -> dict[str, Any]:
    """What came back; an error of the engine itself is a piece that was lost."""
    try:
        return future.result()
    except Exception as error:
        return {"lost": f"{type(error).__name__}: {error}"}


def _far(pieces: Sequence[Piece], orders: Sequence[dict[str, Any]]) -> int:
    """How much of all of the work is done, as far as its processes have said."""
    total = 0
    for piece, order in zip(pieces, orders, strict=True):
        if order.get("over"):
            total += piece.size
        else:
            try:
                total += min(int(Path(order["progress"]).read_text()), piece.size)
            except (OSError, ValueError):  # not begun, or being written
                continue
    return total
