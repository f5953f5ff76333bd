"""Progress is handed in: a stage counts, and whoever calls it says how that is shown.

A stage takes `progress`, which is called as tqdm is: around what it goes through
(`for pair in progress(pairs, unit="pair")`), or with a total, for a bar that is moved by hand
(`with progress(total=30, unit="epoch") as bar`).
"""

import sys
from collections.abc import Callable, Iterable
from typing import Any

from tqdm import tqdm

EVERY_S = 30.0  # between two lines of a log, which nobody watches


Progress = Callable[..., tqdm]  # called as tqdm is, answers a bar as tqdm does


def silent(iterable: Iterable[Any] | None = None, **settings: Any) -> tqdm:
    """Nothing is shown.

    >>> list(silent([1, 2]))
    [1, 2]
    """
    return tqdm(iterable, **(settings | {"disable": True}))


def terminal(iterable: Iterable[Any] | None = None, **settings: Any) -> tqdm:
    """A bar on standard error; in a log file a line every half minute."""
    every_s = 0.2 if sys.stderr.isatty() else EVERY_S
    return tqdm(iterable, **({"mininterval": every_s} | settings))


def automatic(iterable: Iterable[Any] | None = None, **settings: Any) -> tqdm:
    """A notebook's own bar in a notebook, a bar in a terminal, elsewhere a line every half minute.

    So what takes less than that writes nothing where nobody watches.
    """
    if _in_a_notebook():
        from tqdm.notebook import tqdm as notebook_bar

        return notebook_bar(iterable, **settings)
    watched = {} if sys.stderr.isatty() else {"delay": EVERY_S}
    return terminal(iterable, **(settings | watched))


def forwarded(
    moved: Callable[[Any], Any], said: Callable[[str], Any] = lambda text: None
) -> Progress:
    """Bars that show nothing: whoever has a bar of its own, or none, hears how far they are.

    Args:
        moved: is called with the count of the bar that was moved, each time.
        said: is called with what a bar says beside its count.

    >>> counts = []
    >>> with forwarded(counts.append)(total=3) as bar:
    ...     for _ in range(3):
    ...         _ = bar.update()
    >>> counts
    [1, 2, 3]
    """

    class Forwarded(tqdm):
        def update(self, n: float | int | None = 1) -> bool | None:
            self.n += n or 0
            moved(self.n)
            return None

        def set_postfix_str(self, s: str = "", refresh: bool = True) -> None:
            said(s)

    def bar(iterable: Iterable[Any] | None = None, **settings: Any) -> tqdm:
        return Forwarded(iterable, **(settings | {"disable": True}))

    return bar


def _in_a_notebook() -> bool:
    """Whether this is a Jupyter kernel that can show widgets."""
    if "ipykernel" not in sys.modules:
        return False
    try:
        import ipywidgets  # noqa: F401
        from IPython import get_ipython
    except ImportError:
        return False
    shell = get_ipython()
    return shell is not None and "IPKernelApp" in shell.config
