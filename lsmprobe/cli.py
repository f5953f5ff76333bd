"""The command line: a dataclass per command becomes its flags, an error becomes one line.

Nothing heavy is imported before the flags are read, so `--help` answers at once.
"""

import gc
import io
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import MISSING, field, fields, make_dataclass
from functools import reduce
from operator import or_
from typing import Annotated, Any

import tyro

from lsmprobe.commands import COMMANDS, GROUPS, Run
from lsmprobe.config import Extraction
from lsmprobe.errors import LsmprobeError, one_line
from lsmprobe.version import __version__

# --force and no --no-force; `check emodb` and no `command:check emodb`
FLAGS = (tyro.conf.FlagCreatePairsOff, tyro.conf.OmitSubcommandPrefixes)
NOISY = (  # libraries that log what no user acts on
    *("transformers", "huggingface_hub", "httpx", "numba", "matplotlib"),
    *("dask_jobqueue", "asyncio"),
)
INTERRUPTED = 130  # what shells expect after Ctrl-C
COLLECT_EVERY = 50_000
"""New objects between two passes of Python's garbage collector. What torch and pandas load stays,
and at Python's own 700 (2,000 from 3.13) the collector passes over it again and again meanwhile."""


def main(arguments: Sequence[str] | None = None) -> None:
    """`lsmprobe COMMAND ...`."""
    commands: dict[str, Any] = {name: config for name, (config, _) in COMMANDS.items()}
    commands |= {name: _group(*group) for name, group in GROUPS.items()}
    arguments = _with_first_command(list(sys.argv[1:] if arguments is None else arguments))
    if arguments == ["--version"]:
        print(f"lsmprobe {__version__}")
        return
    _exit_with(
        lambda: tyro.extras.subcommand_cli_from_dict(
            commands,
            prog="lsmprobe",
            description="What a frozen large speech model knows about emotion, layer by layer.",
            args=arguments,
            config=FLAGS,
        )
    )


def run_script(command: str) -> None:
    """`python extract.py ...` and `python probe.py ...`: one command by itself."""
    config, _ = COMMANDS[command]
    _exit_with(lambda: tyro.cli(config, prog=f"{command}.py", config=FLAGS))


def _group(description: str, commands: dict[str, tuple[type, Run]]) -> type:
    """A command with commands of its own, the first of which is the default if it needs nothing."""
    kinds: list[Any] = []
    for name, (config, _) in commands.items():
        kind: Any = Annotated[config, tyro.conf.subcommand(name)]
        if not issubclass(config, Extraction):  # as at lsmprobe extract, all are flags
            kind = Annotated[kind, tyro.conf.PositionalRequiredArgs]
        kinds.append(kind)
    if len(kinds) == 1:  # tyro would leave its name out
        kinds.append(Annotated[None, tyro.conf.Suppress])
    first, _ = next(iter(commands.values()))
    default = field() if _needs_something(first) else field(default_factory=first)
    return make_dataclass(
        "Group", [("command", reduce(or_, kinds), default)], namespace={"__doc__": description}
    )


def _needs_something(config: type) -> bool:
    """Whether a command has a flag without a default."""
    return any(each.default is each.default_factory is MISSING for each in fields(config))


def _with_first_command(arguments: list[str]) -> list[str]:
    """`corpora --filter greek` is `corpora list --filter greek`, as `corpora` is `corpora list`."""
    if len(arguments) < 2 or arguments[0] not in GROUPS or not arguments[1].startswith("--"):
        return arguments
    _, commands = GROUPS[arguments[0]]
    name, (config, _) = next(iter(commands.items()))
    if arguments[1] == "--help" or _needs_something(config):
        return arguments
    return [arguments[0], name, *arguments[1:]]


def _exit_with(read_flags: Callable[[], Any]) -> None:
    """Run the command whose config the flags make; leave with its exit status."""
    # What libraries tell is not for users: a line for each request to the hub, for example.
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("lsmprobe").setLevel(logging.INFO)
    for noisy in NOISY:
        logging.getLogger(noisy).setLevel(logging.ERROR)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may be no text
    # A scheduler's SIGTERM stops a run as Ctrl-C does: what is done is kept.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    collect_every = gc.get_threshold()
    gc.set_threshold(COLLECT_EVERY)
    every = [COMMANDS, *(commands for _, commands in GROUPS.values())]
    runs = {config: run for commands in every for config, run in commands.values()}
    try:
        config = read_flags()
        config = getattr(config, "command", config)
        sys.exit(runs[type(config)](config) or 0)
    except LsmprobeError as error:
        sys.exit(f"lsmprobe: {one_line(str(error))}")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if error.filename is None:  # not of a file that the user named
            raise
        name = one_line(str(error.filename))
        sys.exit(f"lsmprobe: {name} cannot be written or read: {error.strerror}.")
    except KeyboardInterrupt:
        print(
            "lsmprobe: stopped. Finished work is kept; run the same command to continue.",
            file=sys.stderr,
        )
        sys.exit(INTERRUPTED)
    finally:
        # Python's own exit takes a moment, in which a signal would change the status.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _nothing)
        gc.set_threshold(*collect_every)


def _nothing(*_: object) -> None:
    """What a signal does to a command that has ended; unlike `SIG_IGN`, no child inherits it."""
