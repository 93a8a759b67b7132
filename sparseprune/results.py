"""Results as JSON lines: one a finished job, known by its whole configuration, safe against interruption."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def identity(key: dict[str, Any]) -> str:
    """Return the one string that two equal configuration keys share."""
    return json.dumps(key, sort_keys=True)


class Results:
    """A file of JSON lines, each a row with its full configuration under "key".

    Args:
        path: the file; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> dict[str, Row]:
        """Return the latest row of every key.

        A last line without its line break was cut short: it does not count.

        Raises:
            ValueError: any other line that is not a row; names the file and the line.
        """
        if not self.path.exists():
            return {}
        *lines, _ = self.path.read_bytes().split(b"\n")
        rows = {}
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
                rows[identity(row["key"])] = row
            except (ValueError, KeyError, TypeError):
                raise ValueError(
                    f"run: line {number} of {self.path} is not a result; mend or delete the file"
                ) from None
        return rows

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the file for this process, dropping a last line that was cut short.

        Raises:
            ValueError: another run holds it.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise ValueError(
                    f"run: another run is writing {self.path}; wait for it or pass another --out"
                ) from None
            whole = self.path.read_bytes().rfind(b"\n") + 1
            stream.truncate(whole)
            yield

    def append(self, row: Row) -> None:
        """Write one row to the disk before returning.

        A number that is not finite becomes null: JSON has no other word for it.
        """
        line = json.dumps(_finite(row), sort_keys=True, allow_nan=False) + "\n"
        with self.path.open("ab") as stream:
            stream.write(line.encode())
            stream.flush()
            os.fsync(stream.fileno())


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and (value != value or abs(value) == float("inf")):
        return None
    return value
