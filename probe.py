"""Stage 2: heads trained and scored on a cache; --help lists the flags."""

from lsmprobe.cli import run_script

if __name__ == "__main__":
    run_script("probe")
