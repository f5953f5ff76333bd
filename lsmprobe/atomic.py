"""Files that are finished as soon as they are there."""

import os
import secrets
from pathlib import Path


def write_then_rename(path: Path, content: bytes) -> None:
    """Write a file beside its place, make it durable, then give it its name.

    Whoever looks finds the file as it was, or complete; a kill in here leaves at most a hidden file
    that nobody takes for another.

    Raises:
        OSError: the file cannot be written; the one that was there is unharmed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with beside.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
