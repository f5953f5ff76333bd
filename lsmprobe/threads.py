"""How the threads of torch wait for each other, said before torch is loaded, which reads it once.

Between two operations a thread spins: it asks again and again whether there is work. On cores that
other jobs use too, it spins while the thread that it waits for has no core to run on.
"""

from collections.abc import MutableMapping

# Long enough for the pause between two small operations of a training, about a millisecond at
# most; after that a thread sleeps, and its core serves whoever has work.
WAITING = {
    "GOMP_SPINCOUNT": "20000",  # GNU's OpenMP, as in torch for Linux; by default 300,000 and more
    "KMP_BLOCKTIME": "1",  # Intel's and LLVM's; milliseconds, by default 200
}


def wait_briefly(environment: MutableMapping[str, str]) -> None:
    """Set what is not set; the user's own word on waiting wins, for all libraries at once."""
    if "OMP_WAIT_POLICY" in environment:  # which the variables below would overrule
        return
    for name, value in WAITING.items():
        environment.setdefault(name, value)
