"""Long columns in blocks: what is made on the way from a million values is of a few of them."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

BLOCK = 2**13  # values


def in_blocks(values: Any) -> Iterator[Any]:
    """A sequence or an array in slices, the last of which may be shorter.

    >>> [len(block) for block in in_blocks(range(BLOCK + 1))]
    [8192, 1]
    """
    return (values[start : start + BLOCK] for start in range(0, len(values), BLOCK))


def rows_as_json(
    columns: Sequence[Any],
    *,
    read: Callable[[Any], Iterable[Any]] = list,
    between: str = ", ",
) -> Iterator[bytes]:
    """The JSON of a list of rows, in pieces.

    Args:
        columns: of the rows, equally long sequences or arrays.
        read: makes of a block of a column what JSON can hold.
        between: what separates two values, or two rows.

    >>> b"".join(rows_as_json([["a", "b"], [1, 2]]))
    b'[["a", 1], ["b", 2]]'
    """
    before = b"["
    for block in zip(*map(in_blocks, columns), strict=True):
        rows = [*zip(*map(read, block), strict=True)]
        yield before + json.dumps(rows, separators=(between, ":"))[1:-1].encode()
        before = between.encode()
    yield b"]" if len(columns[0]) else b"[]"
