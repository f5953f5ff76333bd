"""Engines: what runs pieces. Each is an `Executor` of concurrent.futures in the end."""

import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lsmprobe.cluster.task import take_slot
from lsmprobe.config import ClusterFlags
from lsmprobe.errors import LsmprobeError, SettingsError, counted

# Dask's defaults that do not suit pieces, which are long, write files and are processes themselves.
DASK = {
    "distributed.scheduler.allowed-failures": 1000,  # a worker that was preempted blames no piece
    "distributed.scheduler.work-stealing": False,
    "distributed.scheduler.worker-ttl": "10 minutes",  # a silent worker's pieces go to others
    "distributed.worker.memory.terminate": False,
    "distributed.worker.memory.pause": False,
}
WORKER = ["--nthreads", "1", "--memory-limit", "0"]  # one piece at a time


@dataclass(frozen=True)
class BatchSystem:
    """How a batch system is asked for what the flags say."""

    kind: str  # its class in dask_jobqueue
    payer: str  # its word for who pays
    gpus: Callable[[int, Mapping[str, Any]], dict[str, Any]] = lambda gpus, asked: {}
    walltime: Callable[[str], str] = str
    local: tuple[str, ...] = ()  # flags for what each site calls by a name of its own


def _pbs_gpus(gpus: int, asked: Mapping[str, Any]) -> dict[str, Any]:
    """PBS counts a chunk's last `select` alone, so all of it is said in one."""
    from dask.utils import parse_bytes
    from dask_jobqueue.pbs import pbs_format_bytes_ceil

    if asked["cores"] is None or asked["memory"] is None:
        return {}  # dask_jobqueue says so
    memory = pbs_format_bytes_ceil(parse_bytes(asked["memory"]))
    return {"resource_spec": f"select=1:ncpus={asked['cores']}:ngpus={gpus}:mem={memory}"}


def _hours_and_minutes(walltime: str) -> str:
    """The time limit that LSF takes: hours and minutes, the last one begun.

    >>> _hours_and_minutes("04:00:00"), _hours_and_minutes("00:29:30"), _hours_and_minutes("90")
    ('04:00', '00:30', '90')
    """
    if walltime.count(":") != 2:
        return walltime
    hours, minutes, seconds = map(int, walltime.split(":"))
    minutes += 60 * hours + (seconds > 0)
    return f"{minutes // 60:02d}:{minutes % 60:02d}"


SYSTEMS = {
    "slurm": BatchSystem(
        "SLURMCluster", "account", lambda n, _: {"job_extra_directives": [f"--gres=gpu:{n}"]}
    ),
    "pbs": BatchSystem("PBSCluster", "account", _pbs_gpus),
    "lsf": BatchSystem(
        "LSFCluster",
        "project",
        lambda n, _: {"job_extra_directives": [f'-gpu "num={n}"']},
        _hours_and_minutes,
    ),
    "sge": BatchSystem("SGECluster", "project", local=("cores", "memory", "gpus")),
}


class EngineError(LsmprobeError):
    """What runs pieces is gone."""


@dataclass(frozen=True)
class Engine:
    """An executor, and what is worth knowing of it."""

    executor: Executor
    said: str  # what it is, in words
    n_workers: int  # at a time, for the number of parts
    threads: int | None = None  # of each piece; None: the cores that its worker may use
    check: Callable[[], None] = lambda: None  # raises an error once nothing can be done any more


@contextmanager
def opened(where: Any, flags: ClusterFlags, device: str) -> Iterator[Engine]:
    """What runs pieces, until the end of the block.

    Args:
        where: `local:N`, a batch system, the address or the scheduler file of a Dask cluster, an
            `Executor`, or a Dask client.
        flags: what a batch system is asked for.
        device: as for a stage: with `cpu`, processes of this machine need no GPU each.

    Raises:
        SettingsError: it is none of these, or not to be had here.
    """
    with ExitStack() as held:
        if isinstance(where, Executor):
            yield Engine(where, type(where).__name__, getattr(where, "_max_workers", 1))
        elif hasattr(where, "get_executor"):
            yield _of_client(where)
        elif str(where).partition(":")[0] == "local":
            yield _local(where, device, held)
        else:
            yield _of_client(_dask(str(where), flags, held))


def slots(
    n: int, device: str, environment: Mapping[str, str], count_gpus: Callable[[], int]
) -> list[dict[str, str]]:
    """The environment of each of `n` processes of this machine: a GPU of its own where there are.

    Args:
        n: processes.
        device: as for a stage.
        environment: of this process; CUDA_VISIBLE_DEVICES says which GPUs are to be used.
        count_gpus: how many there are, asked where the environment says nothing.

    Raises:
        SettingsError: fewer GPUs than processes.

    >>> slots(2, "auto", {"CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b,GPU-c"}, int)
    [{'CUDA_VISIBLE_DEVICES': 'GPU-a'}, {'CUDA_VISIBLE_DEVICES': 'GPU-b'}]
    >>> slots(2, "cpu", {}, int)
    [{}, {}]
    """
    if device == "cpu":
        return [{} for _ in range(n)]
    named = environment.get("CUDA_VISIBLE_DEVICES")
    gpus = named.split(",") if named else []
    if named is None:
        gpus = [str(number) for number in range(count_gpus())]
    if gpus and len(gpus) < n:
        raise SettingsError(
            f"--cluster local:{n}: found {counted(len(gpus), 'GPU')}, and each process takes one; "
            f"use local:{len(gpus)}, or --device cpu."
        )
    return [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in gpus[:n]] or [{} for _ in range(n)]


def _local(where: str, device: str, held: ExitStack) -> Engine:
    """Processes of this machine; a thread waits for each."""
    count = where.partition(":")[2]
    if not count.isdecimal() or not 1 <= int(count) <= 1024:
        raise SettingsError(f"--cluster {where}; expected local:N, N processes from 1 to 1024.")
    n = int(count)
    waiting: queue.Queue[dict[str, str]] = queue.Queue()
    for slot in slots(n, device, os.environ, _count_gpus):
        waiting.put(slot)
    executor = held.enter_context(ThreadPoolExecutor(n, initializer=take_slot, initargs=(waiting,)))
    threads = max(1, (os.cpu_count() or 1) // n)
    said = f"{counted(n, 'process|processes')} here, {counted(threads, 'thread')} each"
    return Engine(executor, said, n, threads)


def _count_gpus() -> int:
    import torch

    return torch.cuda.device_count()


def _of_client(client: Any) -> Engine:
    """The cluster that a Dask client is connected to."""
    n_workers = max(1, sum(client.nthreads().values()))
    address = client.scheduler.address
    said = f"Dask at {address}, dashboard {client.dashboard_link or 'off'}"

    def check() -> None:
        if client.status in ("closing", "closed"):  # it has tried to connect again for a while
            raise EngineError(
                f"the Dask scheduler at {address} is gone. Finished work is kept; start a "
                "scheduler and workers, and run the same command to continue."
            )

    return Engine(client.get_executor(pure=False), said, n_workers, check=check)


def _dask(where: str, flags: ClusterFlags, held: ExitStack) -> Any:
    """A client of a Dask cluster: one that runs, or one that a batch system starts."""
    try:
        dask, distributed = _quiet_dask()
    except ImportError as error:
        raise SettingsError(
            f"--cluster {where} needs Dask: pip install 'lsmprobe[cluster]'. local:N works without."
        ) from error
    held.enter_context(dask.config.set(DASK))
    if where in SYSTEMS:
        cluster = held.enter_context(_batch_system(where, flags))
        return held.enter_context(distributed.Client(cluster))
    if Path(where).is_file():
        return held.enter_context(distributed.Client(scheduler_file=where))
    if "://" not in where:
        raise SettingsError(
            f"--cluster {where}: expected local:N, {', '.join(SYSTEMS)}, the address of a Dask "
            "scheduler (tcp://HOST:PORT), or its scheduler file."
        )
    try:
        return held.enter_context(distributed.Client(where))
    except (OSError, TimeoutError) as error:
        raise SettingsError(f"--cluster {where}: no scheduler answers there.") from error


def _quiet_dask() -> tuple[Any, Any]:
    """The two libraries, of which the second would log each connection, unless users ask for it."""
    import dask

    quiet = {} if dask.config.get("logging", None) else {"logging": {"distributed": "error"}}
    with dask.config.set(quiet):
        import distributed  # reads at its import how much it logs
    return dask, distributed


def _batch_system(where: str, flags: ClusterFlags) -> Any:
    """A cluster whose workers are jobs of a batch system; a job that ends is replaced."""
    import dask

    dask_jobqueue = _dask_jobqueue()
    if flags.cluster_file:
        dask.config.update(dask.config.config, dask.config.collect([str(flags.cluster_file)], {}))
    try:
        cluster = getattr(dask_jobqueue, SYSTEMS[where].kind)(**job_settings(where, flags))
    except ValueError as error:  # what neither flags nor the configuration say
        raise SettingsError(f"--cluster {where}: {error}") from error
    cluster.adapt(minimum_jobs=flags.workers, maximum_jobs=flags.workers)
    return cluster


def _dask_jobqueue() -> Any:
    """The library, which at its import would make Ctrl-C an exit with status 0."""
    handlers = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    import dask_jobqueue

    if threading.current_thread() is threading.main_thread():
        for each, handler in handlers.items():
            signal.signal(each, handler)
    return dask_jobqueue


def job_settings(where: str, flags: ClusterFlags) -> dict[str, Any]:
    """What dask_jobqueue is told of a job: what flags say; the rest is in Dask's configuration.

    Args:
        where: a row of SYSTEMS.
        flags: what it is asked for.

    Raises:
        SettingsError: the system cannot be asked for it in the same way everywhere.
    """
    import dask

    system = SYSTEMS[where]
    if local := [f"--{name}" for name in system.local if getattr(flags, name)]:
        raise SettingsError(
            f"--cluster {where} cannot take {', '.join(local)}, since each site has its own names "
            f"for these. Write cores, memory, resource-spec and job-extra-directives of jobqueue: "
            f"{where}: into --cluster-file instead."
        )
    asked = {
        "queue": flags.queue,
        system.payer: flags.account,
        "cores": flags.cores,
        "memory": flags.memory,
        "walltime": system.walltime(flags.walltime),
    }
    known = {name: dask.config.get(f"jobqueue.{where}.{name}", None) for name in asked}
    asked = {name: value for name, value in asked.items() if value}
    gpus = system.gpus(flags.gpus, known | asked) if flags.gpus else {}
    if more := gpus.get("job_extra_directives"):
        said = dask.config.get(f"jobqueue.{where}.job-extra-directives", None) or []
        gpus["job_extra_directives"] = [*said, *more]
    return {"processes": 1, "worker_extra_args": WORKER, **asked, **gpus}
