"""The command line: a dataclass per command becomes its flags, an error becomes one line.

Nothing heavy is imported before the flags are read, so `--help` answers at once.
"""

import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

import tyro

from lsmprobe.config import DemoConfig, ExtractConfig, ProbeConfig
from lsmprobe.errors import LsmprobeError

FLAGS = (tyro.conf.FlagCreatePairsOff,)  # --force, and no --no-force
INTERRUPTED = 130  # what shells expect after Ctrl-C


def extract_command(config: ExtractConfig) -> None:
    """Run stage 1 and print its summary."""
    from lsmprobe import extraction

    if config.dry_run:
        print(extraction.dry_run(config))
    elif config.selftest:
        print(extraction.selftest(config))
    else:
        print(extraction.extract(config))


def probe_command(config: ProbeConfig) -> None:
    """Run stage 2 and print its scores."""
    from lsmprobe.probing import probe
    from lsmprobe.report import format_scores

    print(format_scores(probe(config)))
    print(f"records: {config.results_dir}")


def demo_command(config: DemoConfig) -> None:
    """Run both stages on the embedded default."""
    from lsmprobe.demo import run_demo

    run_demo(config)


COMMANDS: dict[str, tuple[type, Callable[[Any], None]]] = {
    "extract": (ExtractConfig, extract_command),
    "probe": (ProbeConfig, probe_command),
    "demo": (DemoConfig, demo_command),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """`lsmprobe COMMAND ...`."""
    arguments = sys.argv[1:] if arguments is None else arguments
    _exit_with(
        lambda: tyro.extras.subcommand_cli_from_dict(
            {name: config for name, (config, _) in COMMANDS.items()},
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


def _exit_with(read_flags: Callable[[], Any]) -> None:
    """Run the command whose config the flags make; leave with its exit status."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for noisy in ("transformers", "huggingface_hub", "httpx", "numba", "matplotlib"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    # A scheduler's SIGTERM stops a run as Ctrl-C does: what is done is kept.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        config = read_flags()
        run = next(command for kind, command in COMMANDS.values() if type(config) is kind)
        run(config)
    except LsmprobeError as error:
        sys.exit(f"lsmprobe: {error}")
    except KeyboardInterrupt:
        print(
            "lsmprobe: stopped; what was done is kept, the same command continues.", file=sys.stderr
        )
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
