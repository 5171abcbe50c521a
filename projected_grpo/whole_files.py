"""Files that are whole or not there: written under another name beside their place, and renamed."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PARTIAL = ".partial"  # how a file is called until it is whole
READABLE = 0o644  # safetensors writes files that nobody else may read


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A block that writes the file that it is given; what it has written then takes the place of `path`.

    A block that raises leaves what was there before.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}{PARTIAL}")
    try:
        yield partial
        partial.replace(path)
    finally:
        with suppress(OSError):  # where nothing could be written, there may be nothing to remove
            partial.unlink(missing_ok=True)
