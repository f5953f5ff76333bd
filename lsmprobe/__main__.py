"""`python -m lsmprobe COMMAND ...`, where the command `lsmprobe` is not on the path."""

from lsmprobe.cli import main

if __name__ == "__main__":
    main()
