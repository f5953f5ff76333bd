"""What an executor runs: a process of its own for one piece, watched until it ends.

A piece is a process, since a forward pass cannot be interrupted in a thread, threads of torch that
share a process fight, and a process that is killed takes nobody with it. Nothing but small values
comes back. This module stands alone, so that a scheduler's worker can import it at once.
"""

import contextlib
import json
import os
import queue
import select
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

PATIENCE_S = 600.0  # a process that says nothing for so long is taken for dead
GRACE_S = 60.0  # that a process may take to store what is done once it is told to stop
_slot = threading.local()


def take_slot(slots: "queue.Queue[dict[str, str]]") -> None:
    """The initializer of a thread that runs pieces: one of the machine's slots is its own."""
    _slot.environment = slots.get_nowait()


def do_piece(order: dict[str, Any]) -> dict[str, Any]:
    """Start a process for a piece and wait for it.

    Args:
        order: as `runner` makes it; it holds the piece, what all pieces share, and this attempt.

    Returns:
        What the process answered, see `worker`; or `{"lost": why}` where it did not answer.
    """
    environment = {**os.environ, **order["environment"], **getattr(_slot, "environment", {})}
    if "OMP_NUM_THREADS" not in order["environment"]:  # Dask says 1, which is ten times slower
        environment["OMP_NUM_THREADS"] = str(order["threads"] or _cores())
    try:
        log = Path(order["log"]).open("ab")  # noqa: SIM115  closed below
    except OSError as error:
        return {"failed": f"{os.uname().nodename} cannot write {order['log']}: {error.strerror}."}
    with log:
        process = subprocess.Popen(
            [sys.executable, "-m", "lsmprobe.cluster.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=order["cwd"] if Path(order["cwd"]).is_dir() else None,
            env=environment,
            start_new_session=True,  # Ctrl-C is for whoever hands out the pieces
        )
    assert process.stdin
    assert process.stdout
    answer = b""
    try:
        process.stdin.write(json.dumps(order).encode() + b"\n")
        process.stdin.flush()  # and stays open: its end tells the process that nobody waits for it
        while True:
            if not select.select([process.stdout], [], [], order["patience_s"])[0]:
                process.kill()
                return {"lost": f"it said nothing for {order['patience_s']:.0f} s"}
            if not (said := os.read(process.stdout.fileno(), 2**16)):
                break
            answer += said
    except BrokenPipeError:
        pass
    finally:
        _end(process)
    try:
        return dict(json.loads(answer.replace(b"\0", b"")))
    except ValueError:
        status = process.returncode
        return {"lost": f"signal {-status}" if status < 0 else f"exit status {status}"}


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Let a process store what is done, and see that it is gone."""
    for pipe in (process.stdin, process.stdout):
        if pipe:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
    try:
        process.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _cores() -> int:
    """Cores that this process may use: what a scheduler has given to its job."""
    can_tell = hasattr(os, "sched_getaffinity")  # not on macOS
    return len(os.sched_getaffinity(0)) if can_tell else os.cpu_count() or 1
