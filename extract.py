"""Stage 1: a corpus through a frozen speech model, into a cache; --help lists the flags."""

from lsmprobe.cli import run_script

if __name__ == "__main__":
    run_script("extract")
