"""Disturb the real extract.py, and check that nothing is lost and nothing is wrong.

The tests beside this file make a few dozen trials of each kind. `make faults`, which is
`python tests/faults/harness.py --kills 2000 --flips 20000 --seed 1`, makes thousands and prints the
figures of docs/reliability.md. A trial depends on its seed alone (and on the moment at which a
signal arrives), and a failure names the seed.

Every command runs in a process of its own, forked from a server that has imported everything, so
that a trial takes tenths of a second.
"""

import argparse
import codecs
import multiprocessing
import os
import random
import resource
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the server too

import numpy as np
import soundfile
from tqdm import tqdm

from lsmprobe.cache.file import CacheFile, lay_out, pwrite
from lsmprobe.cache.labels import labels_path
from lsmprobe.cache.layout import Member, table_of
from lsmprobe.cache.parts import part_path
from lsmprobe.cache.plan import CachePlan
from lsmprobe.cache.reader import FeatureCache
from lsmprobe.errors import CacheError

ROOT = Path(__file__).parents[2]
NOBODY = 65534  # a user without rights
KILLED = -signal.SIGKILL
INTERRUPTED = 130
FEW, LAYOUT = 8, 40  # things done to the disk: at a repair, and before the first utterance
SIGNALS = (signal.SIGINT, signal.SIGTERM)

# What can be the name of a clip, and of a cache folder.
NAMES = [
    "plain",
    "two words",
    "line\nbreak",
    "quo'te\"s",
    "tab\t; $HOME",
    "-rf",
    "[a]*{b}?",
    "%s %(x)d",
    "für",  # composed
    "fu\u0308r Elise",  # decomposed
    "雨",
    *([os.fsdecode(b"b\xff\xfe")] if sys.platform == "linux" else []),  # no text at all
]

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    [
        "lsmprobe.commands",
        "lsmprobe.extraction.stage",
        "transformers.models.wav2vec2.modeling_wav2vec2",
    ]
)


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit status, negative for a signal, and what it said."""

    status: int
    out: str
    err: str

    def line(self) -> str:
        """The one line, at the end, with which a command says what a user can put right."""
        assert "Traceback" not in self.err, self.err
        said = [line for line in self.err.splitlines() if line.startswith("lsmprobe: ")]
        assert len(said) == 1, self.err
        assert self.err.endswith(f"{said[0]}\n"), self.err
        return said[0]


class Command:
    """A command that runs: `extract.py` as a script, or any other of `lsmprobe`."""

    def __init__(
        self, folder: Path, arguments: Sequence[str], before: Sequence[Callable[[], None]] = ()
    ) -> None:
        self.said = [folder / "out.txt", folder / "err.txt"]
        self.begun = folder / "begun.txt"
        for file in (*self.said, self.begun):
            file.unlink(missing_ok=True)
        names = [str(file) for file in self.said]
        asked = (list(arguments), names, str(self.begun), list(before))
        self.process = SERVER.Process(target=_run, args=asked)
        self.process.start()
        self.pid = self.process.pid

    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return self.process.is_alive()

    def has_begun(self) -> bool:
        """Whether it is lsmprobe that runs, and answers to signals."""
        return self.begun.exists()

    def end(self, number: int | None = None) -> Ended:
        """Wait until it ends, after a signal if one is given."""
        if number is not None and self.is_running():
            os.kill(self.pid, number)
        self.process.join(120)
        assert not self.is_running(), f"still running after 120 s: {self.said}"
        out, err = (file.read_text(errors="replace") if file.exists() else "" for file in self.said)
        return Ended(self.process.exitcode, out, err)


def _run(
    arguments: list[str], said: list[str], begun: str, before: list[Callable[[], None]]
) -> None:
    """In the child: the command as a shell would start it."""
    import lsmprobe.cache.writer
    import lsmprobe.cli

    assert hasattr(lsmprobe.cache.writer, "ACKNOWLEDGE_S")
    lsmprobe.cache.writer.ACKNOWLEDGE_S = 0.02  # seconds; a trial is shorter than the usual two
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Its usual lock is a semaphore, which a kill would leave behind.
    tqdm.set_lock(threading.RLock())
    for number, file in enumerate(said, start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
    sys.stdout.reconfigure(encoding="utf-8", errors="strict")  # as in most places
    exit_with = lsmprobe.cli._exit_with

    def noted(read_flags: Callable[[], object]) -> None:
        def read() -> object:
            with suppress(OSError):  # of a disturbance; nobody waits for it then
                Path(begun).touch()
            return read_flags()

        exit_with(read)

    lsmprobe.cli._exit_with = noted
    for disturb in before:
        disturb()
    if arguments[0] == "extract.py":
        sys.argv = arguments
        runpy.run_path(str(ROOT / "extract.py"), run_name="__main__")
    else:
        lsmprobe.cli.main(arguments)


# What is done to a command before it begins


def limit_file_size(n_bytes: int) -> None:
    """Every file that grows beyond is refused with SIGXFSZ, which Python makes EFBIG."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes))


def lose_rights(folder: Path) -> None:
    """Permissions do not bind root; `folder` is entered first, in case that nobody may pass."""
    os.chdir(folder)
    codecs.lookup("utf-8-sig")  # which Python loads late, from where nobody may read
    if os.geteuid() == 0:
        os.setuid(NOBODY)


DISK = ("pwrite", "fsync", "fdatasync", "replace", "rename", "unlink", "link", "posix_fallocate")


def at_write(number: int | None, count_in: Path | None = None) -> None:
    """Die, as by kill -9, in the middle of the `number`-th thing that is done to the disk.

    Half of what a write holds is written. Without a number they are counted, into a file.
    """
    done = 0

    def counted(act: Callable) -> Callable:
        def acted(*args: object, **kwargs: object) -> object:
            nonlocal done
            done += 1
            if count_in:
                count_in.write_text(str(done))
            if done == number:
                if act is pwrite:
                    descriptor, data, offset = args
                    pwrite(descriptor, data[: len(data) // 2], offset)
                os.kill(os.getpid(), signal.SIGKILL)
            return act(*args, **kwargs)

        return acted

    pwrite = os.pwrite
    for name in DISK:
        if act := getattr(os, name, None):
            mine = [module for key, module in sys.modules.items() if key.startswith("lsmprobe")]
            for module in [os, *mine]:
                for alias, value in list(vars(module).items()):
                    if value is act:
                        setattr(module, alias, counted(act))


# What is disturbed


@dataclass(frozen=True)
class Lab:
    """A corpus, and what an undisturbed extraction makes of it."""

    corpus: Path
    reference: Path
    seconds: float  # that the undisturbed extraction took
    n_writes: int  # things that it did to the disk

    def extraction(self, cache_dir: Path, *more: str) -> list[str]:
        """The command; every utterance is a batch, so that resuming changes no bit."""
        return [
            *("extract.py", "--model", "toy", "--dataset", f"folder:{self.corpus}"),
            *("--speaker-pattern", r"(?P<speaker>s\d)_", "--cache-dir", str(cache_dir)),
            *("--device", "cpu", "--batch-seconds", "0.01", *more),
        ]

    def file(self, cache_dir: Path) -> Path:
        """Where the command stores."""
        return cache_dir / "toy" / f"{self.corpus.name}.h5"


def make_lab(folder: Path, n_clips: int = 12, seed: int = 0) -> Lab:
    """Noise of 0.05 to 0.4 s by four speakers under every kind of name, extracted once."""
    rng = np.random.default_rng(seed)
    corpus = folder / "clips"
    for number in range(n_clips):
        emotion = corpus / ("anger", "sad ness", "fürçht")[number % 3]
        emotion.mkdir(parents=True, exist_ok=True)
        noise = rng.normal(0, 0.1, rng.integers(800, 6_400))
        name = f"s{number % 4}_{NAMES[number % len(NAMES)]}{number}.wav"
        with open(os.fsencode(emotion / name), "wb") as file:
            soundfile.write(file, noise, 16_000, format="WAV", subtype="PCM_16")
    lab = Lab(corpus, folder / "reference.h5", 0.0, 0)
    for _ in range(2):  # the first run warms caches of files
        shutil.rmtree(folder / "once", ignore_errors=True)
        started = time.monotonic()
        ended = Command(folder, lab.extraction(folder / "once")).end()
        seconds = time.monotonic() - started
        assert ended.status == 0, ended.err
    copy_cache(lab.file(folder / "once"), lab.reference)
    counted = folder / "n_writes.txt"
    command = Command(folder, lab.extraction(folder / "twice"), [partial(at_write, None, counted)])
    assert command.end().status == 0
    assert lab.file(folder / "twice").read_bytes() == lab.reference.read_bytes()
    return Lab(corpus, lab.reference, seconds, int(counted.read_text()))


def content(features: FeatureCache) -> dict[str, list]:
    """Everything that a reader can learn about each utterance, by key."""
    rows = [repr(row) for row in features.utterances.itertuples(index=False, name=None)]
    layers = features.layers if features.store == "frames" else ()
    found = {}
    for i, key in enumerate(features.utterances["key"]):
        arrays = [features.pooled[i], features.pooled_std[i]]
        arrays += [features.frames(i, layer) for layer in layers]
        found[key] = [rows[i], *(array.tobytes() for array in arrays)]
    return found


@cache
def content_of(path: Path) -> dict[str, list]:
    """That of a file that does not change."""
    return content(FeatureCache(path))


def done(path: Path, reference: Path, damaged: Collection[str] = ()) -> set[str]:
    """The keys that a cache shows as done and undamaged, if it shows what the reference does.

    Raises:
        AssertionError: it does not, or it shows one as done that is damaged and was not before.
    """
    if not path.parent.exists() or not any(path.parent.glob(f"{path.stem}.*h5")):
        return set()
    try:
        shown = _shown(path)
    except CacheError:  # a merge that runs has just removed a part: look again
        shown = _shown(path)
    expected, keys = content_of(reference), set()
    for key, (found, whole) in shown.items():
        if whole:
            assert found == expected[key], f"{key!r} is not what was extracted"
            keys.add(key)
        else:
            assert key in damaged, f"{key!r} is damaged"
    return keys


def _shown(path: Path) -> dict[str, tuple[list, bool]]:
    """By key what a cache holds, and whether its checksums agree."""
    features = FeatureCache(path, allow_unfinished=True)
    return {
        key: (found, features.verify(i)) for i, (key, found) in enumerate(content(features).items())
    }


def litter(cache_dir: Path, file: Path) -> list[str]:
    """The files in a cache folder besides the cache and the table of its labels."""
    known = {file, labels_path(file)}
    files = (each for each in cache_dir.rglob("*") if each.is_file())
    return sorted(each.name for each in files if each not in known)


# What is killed. A job makes the cache that is there before; its commands end with the reference.


@dataclass(frozen=True)
class Job:
    """Commands that are killed, each several times, before it may finish."""

    prepare: Callable[[Lab, Path], Collection[str]]  # gives the keys of damaged utterances
    commands: Callable[[Lab, Path], list[list[str]]]


def nothing(lab: Lab, cache_dir: Path) -> tuple[()]:
    """No cache at all."""
    return ()


@cache
def made(lab: Lab, *flags: str) -> Path:
    """A folder with caches that were made undisturbed, with each of these flags in turn."""
    folder = Path(tempfile.mkdtemp(dir=lab.reference.parent))
    for flag in flags:
        ended = Command(folder, lab.extraction(folder / "cache", *flag.split())).end()
        assert ended.status == 0, ended.err
    return folder / "cache"


PARTS = tuple(f"--part {number}/3" for number in range(3))


def parts(lab: Lab, cache_dir: Path) -> tuple[()]:
    """A cache in three parts."""
    shutil.copytree(made(lab, *PARTS), cache_dir)
    return ()


def some_damaged(lab: Lab, cache_dir: Path) -> list[str]:
    """The reference, with three utterances damaged."""
    file = lab.file(cache_dir)
    file.parent.mkdir(parents=True)
    copy_cache(lab.reference, file)
    features = FeatureCache(file)
    with file.open("r+b") as opened:
        for i in (0, 5, 9):
            # The bytes of its mean, which stand in the file once.
            opened.seek(file.read_bytes().index(features.pooled[i].tobytes()))
            opened.write(b"damage")
    return list(features.utterances["key"][[0, 5, 9]])


def older_part(lab: Lab, cache_dir: Path) -> tuple[()]:
    """A cache in three parts, one of them from before there were checksums of means."""
    parts(lab, cache_dir)
    path = part_path(lab.file(cache_dir), 1, 3)
    file = CacheFile(path)
    plan = CachePlan(
        utterances=table_of(file.columns),
        n_layers=file.n_layers,
        dim=file.dim,
        store=file.store,
        dtype=file.dtype,
        identity=file.identity,
        means_checksum=False,
    )

    def fill(descriptor: int, members: dict[str, Member]) -> None:
        for name, member in members.items():
            pwrite(descriptor, file.array(name), member.offset)

    lay_out(path, plan, fill)
    return ()


def merging(file: Path) -> list[list[str]]:
    """Make one file of the parts; a kill between that and their removal leaves them over."""
    merge = ["cache", "merge", str(file), "--remove-parts"]
    return [merge, ["cache", "prune", str(file), "--yes"]]


JOBS = {
    "extraction": Job(nothing, lambda lab, where: [lab.extraction(where)]),
    "parts": Job(
        nothing,
        lambda lab, where: [
            *(lab.extraction(where, *flag.split()) for flag in PARTS),
            *merging(lab.file(where)),
        ],
    ),
    "merge": Job(parts, lambda lab, where: merging(lab.file(where))),
    "merge with an older part": Job(older_part, lambda lab, where: merging(lab.file(where))),
    "repair": Job(
        some_damaged,
        lambda lab, where: [
            ["cache", "verify", str(lab.file(where)), "--repair"],
            lab.extraction(where),
        ],
    ),
}


# Trials: each takes a seed, and gives what it counted


def killed(lab: Lab, folder: Path, seed: str, *, job: str = "extraction") -> Counter:
    """The commands of a job, each killed up to nine times at random, then left to finish."""
    chance, cache_dir = random.Random(seed), folder / "cache"
    file, counts = lab.file(cache_dir), Counter(trials=1)
    damaged = JOBS[job].prepare(lab, cache_dir)
    had = done(file, lab.reference, damaged)
    for arguments in JOBS[job].commands(lab, cache_dir):
        for _ in range(chance.randint(1, 9)):
            at_a_time = chance.random() < 0.5
            number = chance.randint(1, chance.choice([FEW, LAYOUT, lab.n_writes]))
            before = [] if at_a_time else [partial(at_write, number)]
            command = Command(folder, arguments, before)
            if at_a_time:
                time.sleep(chance.uniform(0, lab.seconds))
                had |= done(file, lab.reference, damaged)
            ended = command.end(signal.SIGKILL if at_a_time else None)
            has = done(file, lab.reference, damaged)
            assert had <= has, f"lost {had - has}"
            had = has
            if ended.status != KILLED:
                break
            counts["kills"] += 1
            counts["utterances that were done at a kill"] += len(had)
        ended = Command(folder, arguments).end()
        said = ended.out + ended.err  # verify gives 1 for what it has found
        assert ended.status == 0 or "nothing to merge" in said or "marked for" in said, ended
    assert file.read_bytes() == lab.reference.read_bytes()
    assert not (left := litter(cache_dir, file)), left
    return counts


def replaced(lab: Lab, folder: Path, seed: str) -> Counter:
    """A cache that another takes the place of: at every moment one of them is there, complete."""
    chance, cache_dir = random.Random(seed), folder / "cache"
    file, counts = lab.file(cache_dir), Counter(trials=1)
    old = lab.file(made(lab, "--max-seconds 0.05"))
    shutil.copytree(old.parents[1], cache_dir)
    for _ in range(chance.randint(1, 9)):
        number = chance.randint(1, chance.choice([LAYOUT, lab.n_writes + LAYOUT]))
        ended = Command(
            folder, lab.extraction(cache_dir, "--replace"), [partial(at_write, number)]
        ).end()
        assert content(FeatureCache(file)) in (content_of(old), content_of(lab.reference))
        counts["kills"] += ended.status == KILLED
    assert Command(folder, lab.extraction(cache_dir, "--replace")).end().status == 0
    assert file.read_bytes() == lab.reference.read_bytes()
    assert not (left := litter(cache_dir, file)), left
    return counts


def interrupted(lab: Lab, folder: Path, seed: str) -> Counter:
    """Ctrl-C, or a scheduler's SIGTERM, at a random moment."""
    chance, cache_dir = random.Random(seed), folder / "cache"
    number, file = chance.choice(SIGNALS), lab.file(cache_dir)
    command = Command(folder, lab.extraction(cache_dir))
    while not command.has_begun():
        time.sleep(0.005)
    time.sleep(chance.uniform(0, lab.seconds))
    had = done(file, lab.reference)
    ended = command.end(number)
    if ended.status:
        assert ended.status == INTERRUPTED, ended.err
        assert "run the same command to continue" in ended.line()
    assert had <= done(file, lab.reference)
    assert not (left := litter(cache_dir, file)), left
    assert Command(folder, lab.extraction(cache_dir)).end().status == 0
    assert file.read_bytes() == lab.reference.read_bytes()
    return Counter({"trials": 1, f"{signal.Signals(number).name} in time": ended.status != 0})


def refused_for_room(lab: Lab, cache_dir: Path, command: Command) -> int:
    """Whether there was no room: one line says so then, and the folder is as before."""
    ended = command.end()
    if ended.status == 0:
        assert lab.file(cache_dir).read_bytes() == lab.reference.read_bytes()
        return 0
    assert "GB, and" in ended.line(), ended.err
    assert "Make room" in ended.line()
    assert not (left := litter(cache_dir, lab.file(cache_dir))), left
    return 1


def limited(lab: Lab, folder: Path, seed: str) -> Counter:
    """A limit on the size of files."""
    size = lab.reference.stat().st_size
    n_bytes = int(random.Random(seed).uniform(0.5, 2) * size)
    command = Command(folder, lab.extraction(folder / "cache"), [partial(limit_file_size, n_bytes)])
    refused = refused_for_room(lab, folder / "cache", command)
    assert refused or n_bytes >= size
    assert Command(folder, lab.extraction(folder / "cache")).end().status == 0
    return Counter({"trials": 1, "refused": refused})


def filled(lab: Lab, folder: Path, seed: str, *, kind: str) -> Counter:
    """A small filesystem, which other files fill up before or while the extraction runs."""
    chance = random.Random(seed)
    size = lab.reference.stat().st_size
    with mounted(folder / "disk", 3 * size + 2**20, kind) as disk:
        cache_dir, ballast = disk / "cache", disk / "ballast"
        leave = int(chance.uniform(0, 2) * size)
        command = None
        if chance.random() < 0.5:  # else it is full before
            command = Command(folder, lab.extraction(cache_dir))
            time.sleep(chance.uniform(0, lab.seconds))
        fill(ballast, leave)
        command = command or Command(folder, lab.extraction(cache_dir))
        refused = refused_for_room(lab, cache_dir, command)
        ballast.unlink()
        assert Command(folder, lab.extraction(cache_dir)).end().status == 0
        assert lab.file(cache_dir).read_bytes() == lab.reference.read_bytes()
    return Counter({"trials": 1, "refused": refused})


def fill(ballast: Path, leave: int) -> None:
    """Fill a filesystem with one file until so many bytes are left."""
    with ballast.open("wb") as file:
        while (free := os.statvfs(ballast.parent)).f_bavail * free.f_frsize > leave:
            try:
                file.write(bytes(min(65_536, free.f_bavail * free.f_frsize - leave)))
                file.flush()
            except OSError:  # full, before it said so
                return


class MountError(Exception):
    """This user or this machine cannot mount a filesystem."""


@contextmanager
def mounted(place: Path, n_bytes: int, kind: str) -> Iterator[Path]:
    """A filesystem of its own, tmpfs or ext4.

    Raises:
        MountError: only root may, and not everywhere.
    """
    place.mkdir()
    made = ["true"]
    if kind == "tmpfs":
        mount = ["mount", "-t", "tmpfs", "-o", f"size={n_bytes}", "tmpfs", str(place)]
    else:
        image = place.with_suffix(".img")
        with image.open("wb") as file:
            file.truncate(n_bytes + 2**20)
        made = ["mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal", str(image)]
        mount = ["mount", "-o", "loop", str(image), str(place)]
    try:
        for command in (made, mount):
            subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise MountError(f"{kind}: {error}") from error
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def twins(lab: Lab, folder: Path, seed: str) -> Counter:
    """Two extractions of the same file, the second a little later."""
    chance, cache_dir = random.Random(seed), folder / "cache"
    (folder / "second").mkdir()
    first = Command(folder, lab.extraction(cache_dir))
    time.sleep(chance.uniform(0, lab.seconds / 2))
    second = Command(folder / "second", lab.extraction(cache_dir))
    both, file = (first.end(), second.end()), lab.file(cache_dir)
    refusals = [ended.line() for ended in both if ended.status]
    assert len(refusals) < 2, refusals
    assert all("another process" in line for line in refusals), refusals
    assert file.read_bytes() == lab.reference.read_bytes()
    assert not (left := litter(cache_dir, file)), left
    return Counter({"trials": 1, "refused": len(refusals)})


def watched(lab: Lab, folder: Path, seed: str) -> Counter:
    """Readers that open the file again and again while it is written."""
    chance, cache_dir = random.Random(seed), folder / "cache"
    file, seen, n_opened = lab.file(cache_dir), set(), 0
    command = Command(folder, lab.extraction(cache_dir))
    while command.is_running():
        now = done(file, lab.reference)
        assert seen <= now
        seen, n_opened = now, n_opened + file.exists()
        time.sleep(chance.uniform(0, 0.01))
    assert command.end().status == 0
    return Counter(trials=1, readings=n_opened)


# Damage


@dataclass(frozen=True)
class Damage:
    """What happens to the bytes of a file; `where` and `length` are shares of it."""

    kind: str
    where: float
    length: float
    seed: int

    def of(self, good: bytes) -> bytes:
        """The damaged bytes."""
        start = int(self.where * len(good))
        stop = min(start + 1 + int(self.length * len(good)), len(good))
        noise = random.Random(self.seed).randbytes(stop - start)
        between = {
            "flip a bit": bytes([good[start] ^ 1 << self.seed % 8]) + good[start + 1 : stop],
            "overwrite": noise,
            "zero": bytes(stop - start),
            "insert": noise + good[start:stop],
            "remove": b"",
            "repeat": good[start:stop] * 2,
        }
        if self.kind == "truncate":
            return good[:start]
        return good[:start] + between[self.kind] + good[stop:]


KINDS = ("flip a bit", "overwrite", "zero", "insert", "remove", "repeat", "truncate")


def verdict(path: Path, reference: FeatureCache) -> str:
    """What a reader makes of a damaged copy: it is refused, or named by verify, or harmless.

    Raises:
        AssertionError: neither; something that is wrong was read without a word.
    """
    try:
        features = FeatureCache(path, allow_unfinished=True)
        if not all(features.verify(i) for i in range(len(features.utterances))):
            return "named"
        if not features.is_finished:
            return "refused"  # as unfinished
    except CacheError as error:
        assert "\n" not in str(error)
        return "refused"
    names = ("identity", "dtype", "layers", "dim", "store", "identity_hash")
    for name in names:
        assert getattr(features, name) == getattr(reference, name), name
    assert content(features) == content(reference)
    return "harmless"


def copy_cache(source: Path, target: Path) -> None:
    """A cache of one file, with the table of its labels."""
    shutil.copyfile(source, target)
    if labels_path(source).exists():
        shutil.copyfile(labels_path(source), labels_path(target))


def verdicts(path: Path, damages: Sequence[Damage], folder: Path) -> list[str]:
    """The verdict on each damage to a file, by itself."""
    return _in_child(damages, path, folder)


def verdicts_on(files: Sequence[Path], reference: Path, folder: Path) -> list[str]:
    """The verdict on each of several files, or the class of what reading it raised."""
    return _in_child(files, reference, folder)


def _in_child(cases: Sequence[Damage | Path], reference: Path, folder: Path) -> list[str]:
    """Verdicts by a process that may die without harm."""
    found = folder / "verdicts.txt"
    process = SERVER.Process(target=_judge, args=(cases, reference, found))
    process.start()
    process.join()
    lines = found.read_text().splitlines()
    if process.exitcode:
        case = cases[len(lines)]
        raise AssertionError(f"{case}: the reader ended with {process.exitcode}")
    return lines


def _judge(cases: Sequence[Damage | Path], reference: Path, found: Path) -> None:
    features, good = FeatureCache(reference), reference.read_bytes()
    copy = found.with_suffix(".h5")
    copy_cache(reference, copy)  # for its labels, which lie beside it
    with found.open("w") as lines:
        for case in cases:
            if isinstance(case, Damage):
                copy.write_bytes(case.of(good))
                said = verdict(copy, features)
            else:
                try:
                    said = verdict(case, features)
                except Exception as error:
                    said = repr(error)
            print(said, file=lines, flush=True)
        copy.unlink(missing_ok=True)


def random_damages(path: Path, count: int, seed: str) -> list[Damage]:
    """Mostly single bits, at random bytes of random pages, those of HDF5's metadata among them."""
    chance, good = random.Random(seed), np.fromfile(path, np.uint8)
    pages = [page + np.flatnonzero(good[page : page + 4096]) for page in range(0, len(good), 4096)]
    written = [page for page in pages if len(page)]
    return [
        Damage(
            kind="flip a bit" if chance.random() < 0.7 else chance.choice(KINDS),
            where=(chance.choice(chance.choice(written)) + 0.5) / len(good),
            length=chance.choice([0, chance.random() ** 4]),
            seed=chance.randrange(2**32),
        )
        for _ in range(count)
    ]


# Many trials


def trials(trial: Callable[..., Counter], lab: Lab, count: int, seed: int) -> Counter:
    """What so many trials counted; a failing one names its seed."""
    total: Counter = Counter()
    for number in range(count):
        with tempfile.TemporaryDirectory() as folder:
            try:
                total.update(trial(lab, Path(folder), f"{seed}-{number}"))
            except BaseException:
                print(f"{trial} failed with seed {seed}-{number}", file=sys.stderr)
                raise
    return total


def kills(lab: Lab, count: int, seed: int, job: str = "extraction") -> Counter:
    """What at least so many kills of a job counted."""
    counted: Counter = Counter()
    while counted["kills"] < count:
        start = 1_000_003 * seed + counted["trials"]  # another seed for each trial
        counted.update(trials(partial(killed, job=job), lab, 1, start))
    return counted


def main() -> None:
    """The long run, and its figures."""
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--kills", type=int, default=100, help="at least so many kill -9")
    flags.add_argument("--flips", type=int, default=1000, help="so many damaged copies")
    flags.add_argument("--others", type=int, default=20, help="so many trials of every other kind")
    flags.add_argument("--seed", type=int, default=int(time.time()))
    asked = flags.parse_args()
    print(f"seed {asked.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        lab = make_lab(Path(folder))
        for job in JOBS:
            counted = kills(
                lab, asked.kills if job == "extraction" else asked.others, asked.seed, job
            )
            print(f"kill -9, {job}:", dict(counted), flush=True)
        found = Counter()
        while found.total() < asked.flips:
            batch = random_damages(lab.reference, 500, f"{asked.seed}-{found.total()}")
            found.update(verdicts(lab.reference, batch, Path(folder)))
        print("damage:", dict(found), flush=True)
        for trial in (replaced, interrupted, limited, twins, watched):
            print(
                f"{trial.__name__}:", dict(trials(trial, lab, asked.others, asked.seed)), flush=True
            )
        for kind in ("tmpfs", "ext4"):
            try:
                filled_up = trials(partial(filled, kind=kind), lab, asked.others, asked.seed)
            except MountError as error:
                print(error)
            else:
                print(f"full {kind}:", dict(filled_up), flush=True)


if __name__ == "__main__":
    main()
