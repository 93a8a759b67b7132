"""Paper 001's tables: accuracy of nets pruned by hard thresholds and by random masks, with data and without.

By default the paper's own set-up: its nets and data sets, 160 epochs, 3 seeds. The paper does not say at which of
SynFlow's 100 iterations its random mask is drawn. At the last one it is nearly the hard mask: no more than 3 % of what
the iteration before left has to go (density .05). So both are here: drawn at the last (C, D), and at each (C*, D*).

Reference: Bar & Giryes 2023, arXiv 2305.17559.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..data import load
from ..harness import DENSE, Job, Plan, Watcher
from ..harness.units import run_unit, units
from ..methods import Method
from ..paired import Paired
from ..results import Results, Row, identity
from . import _sketching_pictures as pictures
from ._report import Claim, Experiment, Progress
from ._sketching_printed import DENSITIES, PRINTED, Setting, gains
from ._statistics import judged, sign_test
from ._training import device, threads_for

# Columns: what a reader sees, and the method. IMP rewinds to the step of the net and data set.
COLUMNS = {
    "A": ("SynFlow", "synflow/threshold"),
    "B": ("SynFlow + chi", "synflow(inputs=chi)/threshold"),
    "C": ("SynFlow + random mask", "synflow/without_replacement"),
    "D": ("SynFlow + random mask + chi", "synflow(inputs=chi)/without_replacement"),
    "C*": ("SynFlow + random mask at each iteration", "synflow/without_replacement(at=each)"),
    "D*": ("SynFlow + random mask at each iteration + chi", "synflow(inputs=chi)/without_replacement(at=each)"),
    "E": ("SNIP + normal data", "snip(inputs=normal)/threshold"),
    "F": ("SNIP + normal data + random mask", "snip(inputs=normal)/without_replacement"),
    "G": ("SNIP + sparse data", "snip(inputs=sparse)/threshold"),
    "H": ("SNIP + sparse data + random mask", "snip(inputs=sparse)/without_replacement"),
    "snip": ("SNIP", "snip/threshold"),
    "random": ("Random", "random/threshold"),
    "magnitude": ("Magnitude", "magnitude/threshold"),
    "grasp": ("GraSP", "grasp/threshold"),
    "grasp-data-free": ("GraSP + normal data", "grasp(inputs=normal)/threshold"),
    "grasp-data-free-drawn": ("GraSP + normal data + random mask", "grasp(inputs=normal)/without_replacement"),
    "imp": ("IMP", "imp(rewind={rewind})/threshold"),
    "imp-data-free": ("IMP + normal data", "imp(inputs=normal,rewind={rewind})/threshold"),
    "imp-data-free-drawn": (
        "IMP + normal data + random mask",
        "imp(inputs=normal,rewind={rewind})/without_replacement",
    ),
}
REWIND = {("cifar10", "vgg19"): 1000, ("cifar100", "vgg19"): 1000, ("cifar10", "resnet20"): 2000}
REWIND |= {("cifar100", "resnet20"): 6000, ("digits", "mlp"): 4, ("digits", "small-conv"): 4}
MARGIN = 0.01  # what counts as close
SURE = 0.05  # of a sign test


@dataclass(frozen=True)
class Size:
    """Which nets to train on which data sets, and how often; epochs are those of the data set's recipe."""

    nets: tuple[tuple[str, str], ...]
    densities: tuple[float, ...]
    seeds: int
    epochs: int | None = None


@dataclass(frozen=True)
class Item:
    """A table.

    Args:
        name, title: of the experiment.
        columns: of `COLUMNS`, in order.
        better: pairs of columns; the paper has the first at least as good as the second.
        close: pairs of columns; the paper has the first, without data, lose little against the second, with data.
        quick: the size of `--quick`; the full one is that of the printed table.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    better: tuple[tuple[str, str], ...]
    close: tuple[tuple[str, str], ...]
    quick: Size

    @property
    def full(self) -> Size:
        """Return the paper's own size."""
        nets = dict.fromkeys((dataset, model) for dataset, model, _ in PRINTED[self.name])
        return Size(tuple(nets), DENSITIES, 3)


_DIGITS = ("digits", "mlp"), ("digits", "small-conv")
ITEMS = (
    Item(
        "table1",
        "SynFlow and SNIP without data, hard and random masks",
        ("A", "B", "C", "D", "C*", "D*", "E", "F", "G", "H"),
        (("B", "A"), ("C", "A"), ("D", "A"), ("C*", "A"), ("D*", "A"), ("F", "E"), ("G", "E"), ("H", "G"), ("H", "E")),
        (),
        Size(_DIGITS, (0.05, 0.02), 4),
    ),
    Item(
        "table2",
        "GraSP and IMP on random data",
        tuple(column for column in COLUMNS if column in PRINTED["table2"]["cifar10", "vgg19", 0.1]),
        (
            ("magnitude", "random"),
            ("grasp-data-free-drawn", "grasp-data-free"),
            ("imp-data-free-drawn", "imp-data-free"),
        ),
        (("grasp-data-free", "grasp"), ("imp-data-free", "imp")),
        Size(_DIGITS[:1], (0.05, 0.02), 4),
    ),
    Item(
        "table3",
        "SynFlow, hard and random masks, on Tiny-ImageNet",
        ("A", "C", "C*"),
        (("C", "A"), ("C*", "A")),
        (),
        Size(_DIGITS, (0.05, 0.02), 4),
    ),
    Item(
        "table4",
        "SNIP with data against SNIP with sparse data and a random mask",
        ("snip", "H"),
        (("H", "snip"),),
        (("H", "snip"),),
        Size(_DIGITS, (0.05, 0.02), 4),
    ),
)


def method(column: str, dataset: str, model: str) -> str:
    """Return the canonical text of a column's method."""
    return str(Method.parse(COLUMNS[column][1].format(rewind=REWIND.get((dataset, model), 0))))


class _Part(Watcher):
    """Tells how far a training is, in thousandths of all trainings."""

    def __init__(self, name: str, total: int, progress: Progress | None) -> None:
        self.name, self.total, self.progress, self.done = name, total, progress, 0

    def stepped(self, job: Job, done: int, total: int) -> None:
        self.tell(job, done / total)

    def finished(self, job: Job, row: Row) -> None:
        self.done += 1
        self.tell(job, 0.0)

    def tell(self, job: Job, part: float) -> None:
        if self.progress is not None:
            what = f"{self.name} {job.model}, {job.dataset}: {job}"
            self.progress(round(1000 * (self.done + part)), 1000 * self.total, what)


def rows(
    item: Item, *, out: Path, quick: bool, data_dir: Path | None = None, progress: Progress | None = None, seed: int = 0
) -> list[Row]:
    """Train what the table lacks; see `Experiment`. A row of another table's file of the same folder is taken over.

    Raises:
        RuntimeError: a training failed, after all others; its row has the error, and the next run tries again.
    """
    size = item.quick if quick else item.full
    datasets = {name: load(name, data_dir) for name in dict.fromkeys(name for name, _ in size.nets)}
    jobs = [job for net in size.nets for job in _jobs(item, size, net, datasets[net[0]], seed)]
    known: dict[str, Row] = {}
    for name in (*PRINTED, item.name):
        known |= Results(out / f"{name}.jsonl").load()
    results, watcher = Results(out / f"{item.name}.jsonl"), _Part(item.name, len(jobs), progress)

    def deliver(job: Job, row: Row) -> None:
        results.append(row)
        watcher.finished(job, row)

    with results.writing():
        pending = [job for job in jobs if "accuracy" not in known.get(identity(job.key), {})]
        present = results.load()
        for job in jobs:
            if job not in pending:
                if identity(job.key) not in present:
                    results.append(known[identity(job.key)])
                watcher.finished(job, known[identity(job.key)])
        for name, model in size.nets:
            mine = [job for job in pending if (job.dataset, job.model) == (name, model)]
            dataset = datasets[name].to(device(name))
            with threads_for(name):
                for unit in units(mine):
                    run_unit(unit, dataset, out / "checkpoints", watcher, deliver)
        rows = results.load()
    found = [rows[identity(job.key)] for job in jobs]
    errors = [row["error"] for row in found if "error" in row]
    if errors:
        raise RuntimeError(f"reproduce: {len(errors)} of {len(jobs)} trainings failed, the first with {errors[0]}")
    return found


def _jobs(item: Item, size: Size, net: tuple[str, str], dataset: Any, seed: int) -> list[Job]:
    methods = [method(column, *net) for column in item.columns]
    plan = Plan(*net, size.densities, methods, seeds=size.seeds, epochs=size.epochs, device=device(net[0]))
    return [replace(job, seed=job.seed + seed * size.seeds) for job in plan.jobs(dataset)]


Cells = dict[tuple[Setting, str], dict[int, float]]


def cells(rows: list[Row]) -> Cells:
    """Return the accuracies by seed of every setting and column; the dense net's are the column "dense"."""
    found: Cells = {}
    for row in rows:
        key = row["key"]
        net = key["dataset"], key["model"]
        columns = {method(column, *net): column for column in COLUMNS} | {DENSE: DENSE}
        setting = (*net, key["density"])
        found.setdefault((setting, columns[key["method"]]), {})[key["seed"]] = row["accuracy"]
    return found


def printed(item: str, setting: Setting, column: str) -> list[float]:
    """Return what the paper prints for a cell; for a net that it does not have, in all settings of that density."""
    table = PRINTED[item]
    chosen = [setting] if setting in table else [other for other in table if other[2] == setting[2]]
    return [table[other][column].mean for other in chosen if column in table[other]]


def shown(item: Item, rows: list[Row]) -> list[Row]:
    """Return a line a cell: ours and the paper's, percent."""
    return list(_lines(item, cells(rows)))


def _lines(item: Item, found: Cells) -> Iterator[Row]:
    bases = dict(reversed(item.better))  # the first that the item names
    for (setting, column), accuracies in found.items():
        label = f"{column} {COLUMNS[column][0]}" if len(column) < 3 else COLUMNS.get(column, (DENSE,))[0]
        key = dict(zip(("dataset", "model", "density"), setting, strict=True)) | {"column": label}
        base = bases.get(column)
        gain = [a - found[setting, base][seed] for seed, a in accuracies.items()] if base else []
        theirs = printed(item.name, setting, column)
        many = f" (mean of {len(theirs)})" if len(theirs) > 1 else ""
        yield {
            "key": key,
            "ours": _percent(list(accuracies.values())),
            "gain": f"{100 * statistics.fmean(gain):+.2f} over {base}" if gain else "",
            "paper": f"{statistics.fmean(theirs):.2f}{many}" if theirs else "",
        }


def _percent(values: list[float]) -> str:
    spread = f" ± {100 * statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{100 * statistics.fmean(values):.2f}{spread}"


def claims(item: Item, rows: list[Row]) -> list[Claim]:
    """Judge which column is better by a sign test over settings and seeds, which is close by 95 % intervals."""
    found = cells(rows)
    settings = [setting for setting in dict.fromkeys(setting for setting, _ in found) if setting[2] < 1]
    verdicts = [_better(item, found, settings, *pair) for pair in item.better]
    for one, other in item.close:
        text = f"{_named(one)} loses less than {100 * MARGIN:g} point against {_named(other)}"
        means = [_by_seed(found, settings, column) for column in (one, other)]
        verdicts.append(judged(text, *means, above=-MARGIN))
    return [*verdicts, _collapsed(rows)]


def _better(item: Item, found: Cells, settings: list[Setting], one: str, other: str) -> Claim:
    by_net: dict[tuple[str, str], list[float]] = {}
    for setting in settings:
        differences = [100 * (a - found[setting, other][seed]) for seed, a in found[setting, one].items()]
        by_net.setdefault(setting[:2], []).extend(differences)
    ours, p, shown = _signs([difference for some in by_net.values() for difference in some])
    told = f"ours: {shown}"
    if len(by_net) > 1:
        nets = (f"{model} on {name} {_signs(some)[0].mean:+.2f}" for (name, model), some in by_net.items())
        told += f" ({', '.join(nets)})"
    if all({one, other} <= row.keys() for row in PRINTED[item.name].values()):
        told += f"; the paper's means: {_signs(gains(PRINTED[item.name], one, other))[2]}"
    return Claim(f"{_named(one)} >= {_named(other)}", ours.wins > ours.losses if p < SURE else None, told)


def _signs(differences: list[float]) -> tuple[Paired, float, str]:
    """Return the pairs' statistics, the sign test's p, and both in words; pairs count as independent."""
    found = Paired.of(differences)
    assert found is not None  # every item has settings and seeds
    p = sign_test(found.wins, found.losses)
    counts = f"{found.wins} better, {found.ties} equal, {found.losses} worse (sign test p = {p:.2g})"
    return found, p, f"{counts}, {found.mean:+.2f} points"


def _by_seed(found: Cells, settings: list[Setting], column: str) -> dict[int, float]:
    seeds = found[settings[0], column]
    return {seed: statistics.fmean(found[setting, column][seed] for setting in settings) for seed in seeds}


def _named(column: str) -> str:
    return f"{COLUMNS[column][0]} ({column})" if len(column) < 3 else COLUMNS[column][0]


def _collapsed(rows: list[Row]) -> Claim:
    """Judge the paper's 1.00 of SNIP, VGG-19 on CIFAR-100 at 2 %: no accuracy above chance without a flag before."""
    flagged = [row for row in rows if row["collapsed"]]
    chance = [row for row in rows if row["key"]["method"] != DENSE and row["accuracy"] <= 1.5 * _chance(row)]
    silent = [row for row in chance if not row["collapsed"]]
    found = f"{len(flagged)} flagged of {len(rows)}, {len(chance)} at chance, {len(silent)} of them without a flag"
    return Claim(
        "nets that end at chance had a collapsed layer, flagged before training", not silent if chance else None, found
    )


def _chance(row: Row) -> float:
    return {"cifar100": 0.01, "tiny-imagenet": 0.005}.get(row["key"]["dataset"], 0.1)


def experiment(item: Item) -> Experiment:
    """Return the table as an experiment."""

    def bound(**options: Any) -> list[Row]:
        return rows(item, **options)

    def picture(rows: list[Row], path: Path) -> None:
        pictures.table(item.name, item.title, cells(rows), printed, path)

    return Experiment(
        item.name, item.title, bound, picture, lambda rows: claims(item, rows), lambda rows: shown(item, rows)
    )
