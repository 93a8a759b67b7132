"""What the rows of a run say: means over seeds and paired statistics, one line a method and density."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .harness import DENSE, MASKED
from .paired import Paired
from .results import Row

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text


# Rows by seed, by density, method and layout.
Cells = dict[tuple[float, str, str], dict[int, Row]]


@dataclass(frozen=True)
class Stat:
    """A mean and a sample standard deviation (0 for one value)."""

    mean: float
    std: float

    @classmethod
    def of(cls, values: list[float]) -> Stat | None:
        """Return the statistics of the values, None where there is none."""
        if not values:
            return None
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0)


@dataclass(frozen=True)
class Line:
    """One method at one density in one layout over its seeds.

    Args:
        method: "dense" or "score/select".
        layout: "masked", "csr" or "auto"; the dense net counts as masked.
        density: asked for; `achieved` is what the masks keep.
        seeds: how many gave an accuracy; `failed`: an error; `collapsed`: some layer kept nothing; `diverged`: the
            last loss was not finite.
        accuracy: in [0, 1].
        to_dense: accuracy minus the dense net's, paired by seed.
        to_threshold: minus the same score's under "threshold"; None for threshold itself.
        to_masked: minus that in the masked layout; None for the masked layout itself.
        prune_ms, step_ms, peak_bytes: the median over seeds; the last two None for rows of versions without them.
        error: the first error, if any.
    """

    method: str
    layout: str
    density: float
    seeds: int
    accuracy: Stat | None
    to_dense: Paired | None
    to_threshold: Paired | None
    to_masked: Paired | None
    achieved: Stat | None
    prune_ms: float | None
    step_ms: float | None
    peak_bytes: float | None
    collapsed: int
    diverged: int
    failed: int
    error: str | None


def summarise(rows: list[Row]) -> list[Line]:
    """Return one line a method and density, in order of their first row; densities from high to low.

    Args:
        rows: what `sparseprune.harness.run` returned.
    """
    cells: Cells = {}
    for row in rows:
        key = row["key"]
        cells.setdefault((key["density"], key["method"], key.get("layout", MASKED)), {})[key["seed"]] = row
    order = sorted(cells, key=lambda cell: (cell[1] != DENSE, -cell[0]))  # stable: methods stay in the plan's order
    return [_line(cells, *cell) for cell in order]


def _line(cells: Cells, density: float, method: str, layout: str) -> Line:
    rows = cells[density, method, layout]
    good = {seed: row for seed, row in rows.items() if "accuracy" in row}
    score, _, selector = method.partition("/")
    threshold = cells.get((density, f"{score}/threshold", layout), {}) if selector not in ("", "threshold") else {}
    masked = cells.get((density, method, MASKED), {}) if layout != MASKED else {}
    errors = [row["error"] for row in rows.values() if "error" in row]
    return Line(
        method,
        layout,
        density,
        len(good),
        Stat.of([row["accuracy"] for row in good.values()]),
        None if method == DENSE else _paired(good, cells.get((1.0, DENSE, MASKED), {})),
        _paired(good, threshold),
        _paired(good, masked),
        Stat.of([row["density"] for row in good.values()]),
        None if method == DENSE else _median(good, "prune_ms"),
        _median(good, "step_ms"),
        _median(good, "peak_bytes"),
        sum(bool(row["collapsed"]) for row in good.values()),
        sum(row["diverged"] for row in good.values()),
        len(errors),
        errors[0] if errors else None,
    )


def _median(rows: dict[int, Row], name: str) -> float | None:
    values = [row[name] for row in rows.values() if row.get(name) is not None]
    return statistics.median(values) if values else None


def _paired(rows: dict[int, Row], others: dict[int, Row]) -> Paired | None:
    """Compare seed by seed: the same initial weights and data order on both sides."""
    return Paired.of(
        [row["accuracy"] - others[s]["accuracy"] for s, row in rows.items() if "accuracy" in others.get(s, {})]
    )


def table(lines: list[Line], title: str) -> Table:
    """Return the lines as a rich table: accuracies in percent; mean paired differences in points with their 95 %
    interval, and wins-ties-losses. Layouts are named where one is not masked, memory shown where there are several.
    """
    from rich import box
    from rich.table import Table

    result = Table(title=title, box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False, caption=_notes(lines))
    layouts = {line.layout for line in lines if line.method != DENSE}
    named, several = layouts - {MASKED} != set(), len(layouts) > 1
    against = {"dense": "to_dense", "threshold": "to_threshold"} | ({"masked": "to_masked"} if several else {})
    names = ["density", "method", *["layout"] * named, "accuracy %"]
    for other in against:
        names += [f"- {other} [95 %]", "w-t-l"]
    names += ["kept %", "prune ms", "step ms", *["peak MB"] * several, "collapse"]
    for name in names:
        result.add_column(name, justify="left" if name in ("method", "layout") else "right", no_wrap=True)
    before = None
    for line in lines:
        if before is not None and line.density != before:
            result.add_section()
        result.add_row(
            "" if line.density == before else f"{line.density:g}",
            line.method,
            *[line.layout if line.method != DENSE else ""] * named,
            f"{100 * line.accuracy.mean:.2f} ± {100 * line.accuracy.std:.2f}" if line.accuracy else "failed",
            *[cell for attribute in against.values() for cell in _difference(getattr(line, attribute))],
            f"{100 * line.achieved.mean:.2f}" if line.achieved else "",
            f"{line.prune_ms:.0f}" if line.prune_ms is not None else "",
            f"{line.step_ms:.2f}" if line.step_ms is not None else "",
            *[f"{line.peak_bytes / 1e6:.1f}" if line.peak_bytes is not None else ""] * several,
            f"{line.collapsed}/{line.seeds}" if line.method != DENSE else "",
        )
        before = line.density
    return result


def _notes(lines: list[Line]) -> Text | None:
    """Return what went wrong, a line a cell; None if nothing did."""
    from rich.text import Text

    notes = []
    for line in lines:
        cell = f"{line.method} {line.density:g}" + (f" {line.layout}" if line.layout != MASKED else "")
        if line.diverged:
            notes.append(f"diverged: {cell}, {line.diverged} of {line.seeds} seed(s)")
        if line.error:
            notes.append(f"failed: {cell}, {line.failed} of {line.seeds + line.failed} seed(s): {line.error}")
    return Text("\n".join(notes), justify="left") if notes else None


def _difference(paired: Paired | None) -> tuple[str, str]:
    if paired is None:
        return "", ""
    interval = f"{100 * paired.mean:+.2f} [{100 * paired.low:+.2f}, {100 * paired.high:+.2f}]"
    return interval.replace("[", r"\["), f"{paired.wins}-{paired.ties}-{paired.losses}"
