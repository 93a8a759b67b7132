"""What an experiment of a paper is: rows that come one by one, a picture, claims with verdicts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..results import Results, Row, identity

# Called with the units of work done, their total and what is being done.
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper or of its specification, checked.

    Args:
        text: the sentence.
        holds: the verdict; None: these rows cannot tell.
        found: the numbers behind it, with their interval.
    """

    text: str
    holds: bool | None
    found: str


class Rows(Protocol):
    """Return the rows of an experiment, appending them to `out`/NAME.jsonl as they come; what is there is not redone.

    Args:
        out: the folder; created.
        quick: smaller sizes, for seconds in place of minutes.
        data_dir: folder of the data sets' files; None: what needs none.
        progress: told after every unit of work.
        seed: of everything random.
    """

    def __call__(
        self, *, out: Path, quick: bool, data_dir: Path | None, progress: Progress | None, seed: int = 0
    ) -> list[Row]: ...


@dataclass(frozen=True)
class Experiment:
    """A figure or a section of a paper.

    Args:
        name: "E1".
        title: one line.
        rows: see `Rows`.
        picture: draws a PNG of the rows, the specification's numbers beside ours.
        claims: judges the rows.
        shown: the lines of the printed table, as rows; default: all rows.
    """

    name: str
    title: str
    rows: Rows
    picture: Callable[[list[Row], Path], None]
    claims: Callable[[list[Row]], list[Claim]]
    shown: Callable[[list[Row]], list[Row]] = list


def collect(
    path: Path,
    keys: list[dict[str, Any]],
    compute: Callable[[dict[str, Any]], dict[str, Any]],
    progress: Progress | None = None,
) -> list[Row]:
    """Return a row for every key, in order; compute and append only those that the file lacks.

    Args:
        path: JSON lines; created with its folder.
        keys: full configurations, one a row.
        compute: returns the row's fields beside "key"; JSON can write them.
        progress: called with (rows done, rows, the last one's key).
    """
    results = Results(path)
    with results.writing():
        rows = results.load()
        for done, key in enumerate(keys):
            if identity(key) not in rows:
                results.append({"key": key, **compute(key)})
            if progress is not None:
                progress(done + 1, len(keys), ", ".join(str(value) for value in key.values()))
        rows = results.load()
    return [rows[identity(key)] for key in keys]


def curve(rows: list[Row], name: str, /, **wanted: Any) -> list[Row]:
    """Return the rows whose key has this "curve" and these values."""
    wanted = {"curve": name, **wanted}
    return [row for row in rows if all(row["key"][field] == value for field, value in wanted.items())]
