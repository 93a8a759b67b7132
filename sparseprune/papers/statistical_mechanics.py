"""Paper 004's figure 3: DIVNET beside random and importance edge pruning of a trained net's first layer.

All are re-weighted, and keep as many parameters: k_e edges into each of h1 units, or k_n = h1 (k_e + h2) / (d + h2)
units, d inputs and h2 units in the next layer. The authors' plots add offsets typed by hand to some of their series:
their numbers stand beside ours, and no verdict rests on them. Ours shuffle the data and normalise by its own moments.

Reference: Acharyya et al., UAI 2021, "Statistical Mechanical Analysis of Neural Network Pruning", section 5.2.
"""

from __future__ import annotations

import hashlib
import math
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..data import Dataset, load
from ..files import write_whole
from ..harness import fingerprint
from ..nodes import Edges, Nodes
from ..results import Row, identity
from ..training import checkpoint, evaluate, train
from ._report import Claim, Experiment, Progress, collect
from ._statistics import Z

Tell = Callable[[int, str], None]

DIVNET, RANDOM, IMPORTANCE = METHODS = ("DIVNET", "random edge", "importance edge")
_SHARES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_FIRST = "1"  # the layer pruned
_SCORED = 1024  # training examples a batch, where the layer is observed

# Read off figure 3: test error in % at 20, 30, ..., 100 % of the parameters.
PRINTED = {
    "mnist": {
        DIVNET: (4.01, 3.97, 3.93, 3.87, 3.81, 3.84, 3.71, 3.72, 3.67),
        RANDOM: (4.81, 4.21, 3.99, 3.81, 3.75, 3.72, 3.69, 3.68, 3.67),
        IMPORTANCE: (3.85, 3.84, 3.78, 3.76, 3.74, 3.73, 3.69, 3.69, 3.67),
    },
    "cifar10": {
        DIVNET: (53.37, 53.04, 53.07, 52.89, 52.87, 52.81, 52.85, 52.73, 52.68),
        RANDOM: (52.94, 52.91, 52.83, 52.74, 52.70, 52.69, 52.68, 52.68, 52.68),
        IMPORTANCE: (52.89, 52.74, 52.74, 52.71, 52.67, 52.68, 52.68, 52.71, 52.68),
    },
}


@dataclass(frozen=True)
class Setting:
    """A sigmoid net and its training, by SGD with momentum .9, until the training error falls below `until`."""

    hidden: tuple[int, ...]
    until: float
    batch_size: int
    lr: float
    repetitions: int = 10
    shares: tuple[float, ...] = _SHARES


FULL = {
    "mnist": Setting((500, 500), 0.01, 1000, 0.001),
    "cifar10": Setting((1000, 1000, 1000), 0.5, 128, 0.001),
    "digits": Setting((40, 40), 0.01, 32, 0.1),
}
# A recipe of seconds: at lr .001 the papers' nets take hundreds of epochs.
_FEW = {"repetitions": 5, "shares": (0.2, 0.3, 0.5, 0.7, 0.9)}
QUICK = {
    "mnist": replace(FULL["mnist"], batch_size=256, lr=0.2, **_FEW),
    "digits": replace(FULL["digits"], **_FEW),
}


def edges_of_a_unit(share: float, inputs: int) -> int:
    """Return k_e = floor(share d)."""
    return int(share * inputs + 1e-9)


def matching_units(edges: int, inputs: int, units: int, following: int) -> int:
    """Return k_n = ceil(h1 (k_e + h2) / (d + h2)): as many parameters as k_e edges into each unit."""
    return math.ceil(units * (edges + following) / (inputs + following))


class Bench:
    """A trained net and what its first layer sees; made when a trial first needs it.

    Args:
        folder: of the net's checkpoint.
        tell: called with the trials done, none, and what is being done, while the net is trained.
    """

    def __init__(self, dataset: Dataset, setting: Setting, folder: Path, seed: int, tell: Tell) -> None:
        self.dataset, self.setting, self._folder, self._seed, self._tell = dataset, setting, folder, seed, tell

    @cached_property
    def key(self) -> dict[str, Any]:
        """Return what decides the trained net."""
        recipe = {name: value for name, value in asdict(self.setting).items() if name not in ("repetitions", "shares")}
        recipe["hidden"] = list(self.setting.hidden)
        return {"dataset": self.dataset.name, "data": fingerprint(self.dataset), **recipe, "seed": self._seed}

    @cached_property
    def model(self) -> nn.Module:
        """Return the net, trained or from its checkpoint; without momentum at the start of each epoch."""
        digest = hashlib.sha256(identity(self.key).encode()).hexdigest()[:16]
        path = self._folder / f"fig3-{self.dataset.name}-{digest}.pt"
        model, epoch, error = sigmoid_net(self.dataset, self.setting.hidden, self._seed), 0, 1.0
        state = checkpoint.load(path, self.key, torch.device("cpu"))
        if state is not None:
            model.load_state_dict(state["model"])
            epoch, error = state["epoch"], state["error"]
        rates = {"batch_size": self.setting.batch_size, "lr": self.setting.lr, "momentum": 0.9, "weight_decay": 0.0}
        while error >= self.setting.until:
            self._tell(0, f"{self.dataset.name}: training, epoch {epoch + 1}, training error {100 * error:.2f} %")
            train(model, self.dataset, epochs=1, milestones=(), seed=self._seed * 1_000_003 + epoch, **rates)
            error = 1 - evaluate(model, self.dataset.train_inputs, self.dataset.train_targets)
            epoch += 1
            found = {"model": model.state_dict(), "epoch": epoch, "error": error}
            checkpoint.save(path, {"recipe": self.key, **found})
        return model.eval()

    @cached_property
    def nodes(self) -> Nodes:
        """Return the first layer's units."""
        return Nodes(self.model, _FIRST, self.dataset.batches(_SCORED))

    @cached_property
    def edges(self) -> Edges:
        """Return the first layer's edges."""
        return Edges(self.model, _FIRST, self.dataset.batches(_SCORED))

    def kept(self, method: str, share: float) -> int:
        """Return how many units of the layer, or edges of each, this share is."""
        inputs = math.prod(self.dataset.input_shape)
        edges = edges_of_a_unit(share, inputs)
        return matching_units(edges, inputs, *self.setting.hidden[:2]) if method == DIVNET else edges

    def trial(self, method: str, share: float, repetition: int) -> nn.Module:
        """Return the net pruned and re-weighted."""
        kept, seed = self.kept(method, share), self._seed * 1_000_003 + repetition
        if method == DIVNET:
            return self.nodes.remove(self.nodes.choose(kept / self.nodes.units, method="dpp", seed=seed))
        kind = "random" if method == RANDOM else "importance"
        density = kept / math.prod(self.dataset.input_shape)
        return self.edges.remove(self.edges.choose(density, method=kind, seed=seed))

    def error(self, model: nn.Module) -> float:
        """Return the test error in %."""
        return 100 * (1 - evaluate(model, self.dataset.test_inputs, self.dataset.test_targets))


def sigmoid_net(dataset: Dataset, hidden: tuple[int, ...], seed: int) -> nn.Module:
    """Build Flatten, Linear, Sigmoid, ..., Linear: Xavier-uniform weights, no bias at first."""
    sizes = (math.prod(dataset.input_shape), *hidden, dataset.classes)
    layers: list[nn.Module] = [nn.Flatten()]
    generator = torch.Generator().manual_seed(seed)
    for inputs, outputs in pairwise(sizes):
        layer = nn.Linear(inputs, outputs, device="meta").to_empty(device="cpu")
        nn.init.xavier_uniform_(layer.weight, generator=generator)
        nn.init.zeros_(layer.bias)
        layers += [layer, nn.Sigmoid()]
    return nn.Sequential(*layers[:-1])


def rows(
    *, out: Path, quick: bool, data_dir: Path | None = None, progress: Progress | None = None, seed: int = 0
) -> list[Row]:
    """Prune at every share by every method; see `Experiment`.

    With `data_dir` on those of MNIST and CIFAR-10 (if quick, MNIST alone) that it holds, else on the digits. Every
    pruning goes to fig3-trials.jsonl as it comes.
    """
    settings = QUICK if quick else FULL
    datasets = _datasets(quick, data_dir)
    total = sum(len(_trials(settings[dataset.name])) for dataset in datasets)
    before, found = 0, []
    for dataset in datasets:
        tell = partial(_tell, progress, before, total)
        bench = Bench(dataset, settings[dataset.name], out / "checkpoints", seed, tell)
        trials = _perform(bench, out / "fig3-trials.jsonl", tell)
        found += _means(bench, trials, out / "fig3.jsonl")
        before += len(trials)
    return found


def _tell(progress: Progress | None, before: int, total: int, done: int, what: str) -> None:
    if progress is not None:
        progress(before + done, total, f"fig3 {what}")


def _perform(bench: Bench, path: Path, tell: Tell) -> list[Row]:
    """Return a row for every trial."""
    trials = _trials(bench.setting)

    def compute(key: Row) -> Row:
        pruned = bench.trial(key["method"], key["share"], key["repetition"])
        return {"test_error": bench.error(pruned), "dense_error": bench.error(bench.model)}

    def told(done: int, *_: Any) -> None:
        trial = trials[done - 1]
        tell(done, f"{bench.dataset.name}: {trial['method']}, {100 * trial['share']:g} %, {trial['repetition'] + 1}")

    return collect(path, [bench.key | trial for trial in trials], compute, told)


def _datasets(quick: bool, data_dir: Path | None) -> list[Dataset]:
    if data_dir is None:
        return [load("digits")]
    found, missing = [], None
    for name in ("mnist",) if quick else ("mnist", "cifar10"):
        try:
            found.append(load(name, data_dir))
        except FileNotFoundError as error:
            missing = error
    if not found and missing is not None:
        raise missing
    return found


def _trials(setting: Setting) -> list[Row]:
    return [
        {"method": method, "share": share, "repetition": repetition}
        for method in METHODS
        for share in setting.shares
        for repetition in range(1 if method == IMPORTANCE else setting.repetitions)
    ]


def _means(bench: Bench, trials: list[Row], path: Path) -> list[Row]:
    """Return a row for every method and share: the mean over its trials beside the paper's number."""
    groups: dict[tuple[str, float], list[Row]] = {}
    for trial in trials:
        groups.setdefault((trial["key"]["method"], trial["key"]["share"]), []).append(trial)
    keys = [
        bench.key | {"method": method, "share": share, "repetitions": len(some)}
        for (method, share), some in groups.items()
    ]

    def compute(key: Row) -> Row:
        some = groups[key["method"], key["share"]]
        values = [trial["test_error"] for trial in some]
        printed = PRINTED.get(key["dataset"], {}).get(key["method"])
        return {
            "kept": bench.kept(key["method"], key["share"]),
            "test_error": statistics.fmean(values),
            "deviation": statistics.stdev(values) if len(values) > 1 else 0.0,
            "dense_error": some[0]["dense_error"],
            "paper": printed[_SHARES.index(key["share"])] if printed else None,
            "values": values,
        }

    return collect(path, keys, compute)


def picture(rows: list[Row], path: Path) -> None:
    """Draw test error against the share of parameters, axes a data set; crosses are read off the paper's figure."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(row["key"]["dataset"] for row in rows))
    figure = Figure(figsize=(7 * len(names), 5), dpi=120, layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        mine = [row for row in rows if row["key"]["dataset"] == name]
        axes.set(title=f"fig3: {name}, re-weighted", xlabel="share of the first layer kept", ylabel="test error, %")
        for colour, method in zip(("C0", "C1", "C2"), METHODS, strict=True):
            some = [row for row in mine if row["key"]["method"] == method]
            shares = [row["key"]["share"] for row in some]
            errors, bars = ([row[field] for row in some] for field in ("test_error", "deviation"))
            axes.errorbar(shares, errors, bars, color=colour, label=method, marker="o", markersize=4, capsize=2)
            if name in PRINTED:
                printed = PRINTED[name][method]
                shares = [*_SHARES, 1.0]
                axes.plot(shares, printed, color=colour, marker="x", linestyle="none", label=f"{method}, the paper's")
        axes.axhline(mine[0]["dense_error"], color="black", linewidth=1, label="not pruned")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    write_whole(path, lambda stream: figure.savefig(stream, format="png"))


def claims(rows: list[Row]) -> list[Claim]:
    """Judge the figure's orders on each data set, by intervals of 3.5 standard errors over masks of one trained net."""
    found = []
    for name in dict.fromkeys(row["key"]["dataset"] for row in rows):
        mine = [row for row in rows if row["key"]["dataset"] == name]
        # The digits stand in for MNIST.
        if name == "cifar10":
            found.append(_better(mine, RANDOM, DIVNET, name, 0.0, 1.0))
        else:
            found.append(_better(mine, RANDOM, DIVNET, name, 0.45, 1.0))
            found.append(_better(mine, DIVNET, RANDOM, name, 0.0, 0.35))
        found += [_better(mine, IMPORTANCE, other, name, 0.0, 1.0) for other in (RANDOM, DIVNET)]
    return found


def _better(rows: list[Row], one: str, other: str, dataset: str, low: float, high: float) -> Claim:
    """Judge "the error of one is lower than the other's" at every share between two."""
    cells = {(row["key"]["method"], row["key"]["share"]): row for row in rows}
    shares = [share for method, share in cells if method == one and low <= share <= high]
    gains = []
    for share in shares:
        pair = [cells[method, share] for method in (other, one)]
        drawn = [row for row in pair if row["key"]["method"] != IMPORTANCE]  # the other has no randomness
        repeated = all(len(row["values"]) > 1 for row in drawn)
        error = math.sqrt(sum(row["deviation"] ** 2 / len(row["values"]) for row in drawn)) if repeated else math.inf
        gains.append((pair[0]["test_error"] - pair[1]["test_error"], Z * error, share))
    told = all(abs(gain) > half for gain, half, _ in gains)
    lost = any(gain < -half for gain, half, _ in gains)
    gain, half, share = min(gains)
    where = f"at {100 * shares[0]:g} to {100 * shares[-1]:g} % of the parameters"
    shown = f"least gain {gain:+.2f} ± {half:.2f} points, at {100 * share:g} %"
    return Claim(f"{dataset}: {one} errs less than {other} {where}", False if lost else True if told else None, shown)


EXPERIMENTS = {
    "fig3": Experiment("fig3", "DIVNET, random and importance edge pruning, re-weighted", rows, picture, claims)
}
