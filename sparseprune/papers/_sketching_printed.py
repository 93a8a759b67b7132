"""The accuracies that paper 001 prints, tables 1 to 4, in percent: mean ± standard deviation over 3 seeds.

Not one architecture throughout: "ResNet-20" jumps by some 16 points between methods on CIFAR-100 (SynFlow, Random,
Magnitude, IMP against SNIP and GraSP), which a net of doubled width explains. Compare within a method only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

Setting = tuple[str, str, float]  # data set, model, density
DENSITIES = (0.1, 0.05, 0.02)


class Printed(NamedTuple):
    """A cell: percent; no standard deviation where the paper prints none."""

    mean: float
    std: float | None


Table = Mapping[Setting, Mapping[str, Printed]]

# A line a column of the paper's table, or a row of it: data set, net, method; then densities 10, 5 and 2 %.
_TABLE_1 = """
cifar10 vgg19 A 93.01±0.19 92.68±0.11 91.68±0.28
cifar10 vgg19 B 93.12±0.12 92.52±0.20 91.32±0.11
cifar10 vgg19 C 93.06±0.12 92.44±0.11 91.63±0.16
cifar10 vgg19 D 93.12±0.18 92.63±0.29 91.71±0.28
cifar10 vgg19 E 92.15±0.07 91.53±0.04 90.35±0.31
cifar10 vgg19 F 92.55±0.57 92.18±0.78 91.04±0.14
cifar10 vgg19 G 92.85±0.06 92.02±0.18 90.97±0.11
cifar10 vgg19 H 93.16±0.36 92.79±0.78 92.03±0.91
cifar10 resnet20 A 86.55±0.18 83.19±0.36 77.06±0.35
cifar10 resnet20 B 86.70±0.32 83.28±0.31 77.10±0.12
cifar10 resnet20 C 86.74±0.22 83.55±0.38 77.74±0.51
cifar10 resnet20 D 86.59±0.29 83.45±0.42 77.74±0.43
cifar10 resnet20 E 85.69±0.37 82.37±0.69 77.2±0.56
cifar10 resnet20 F 86.77±0.41 83.59±0.4 78.99±0.73
cifar10 resnet20 G 85.85±0.07 82.29±0.01 76.98±0.66
cifar10 resnet20 H 87.02±0.65 83.72±0.73 79.39±0.49
cifar100 vgg19 A 69.90±0.26 68.25±0.66 65.98±0.38
cifar100 vgg19 B 69.84±0.15 68.39±0.31 65.68±0.23
cifar100 vgg19 C 69.97±0.43 68.65±0.33 65.87±0.50
cifar100 vgg19 D 70.24±0.29 68.32±0.08 66.00±0.22
cifar100 vgg19 E 72.75±0.22 71.48±0.72 1.00
cifar100 vgg19 F 72.67±0.01 71.34±0.03 1.00
cifar100 vgg19 G 72.13±0.08 71.05±0.11 48.48±13.88
cifar100 vgg19 H 72.49±0.33 71.51±0.45 53.05±15.38
cifar100 resnet20 A 50.66±0.78 41.12±0.92 23.39±1.04
cifar100 resnet20 B 50.97±0.51 40.87±0.76 23.52±0.27
cifar100 resnet20 C 52.29±0.64 42.92±0.53 24.89±0.75
cifar100 resnet20 D 51.80±0.60 42.44±0.48 24.35±0.72
cifar100 resnet20 E 66.90±0.33 60.97±0.45 47.61±4.15
cifar100 resnet20 F 67.11±0.62 61.03±0.03 48.86±0.07
cifar100 resnet20 G 67.32±0.13 61.94±0.60 50.30±0.04
cifar100 resnet20 H 67.52±0.10 62.68±0.32 51.76±0.36
"""

_TABLE_2 = """
cifar10 vgg19 random 91.14±0.08 89.24±0.22 86.28±0.04
cifar10 vgg19 magnitude 93.05±0.22 92.23±0.9 91.28±0.43
cifar10 vgg19 grasp 92.21±0.69 91.68±1.21 90.92±1.28
cifar10 vgg19 grasp-data-free 92.23±0.95 91.23±0.91 90.9±1.63
cifar10 vgg19 grasp-data-free-drawn 92.12±0.88 91.57±1.1 91.22±1.08
cifar10 vgg19 imp 93.56±0.19 92.64±0.19 89.63±1.57
cifar10 vgg19 imp-data-free 91.53±0.32 91.42±0.19 90.58±0.69
cifar10 vgg19 imp-data-free-drawn 91.57±0.03 91.45±0.12 90.55±0.7
cifar10 resnet20 random 85.04±0.12 72.08±1.38 10.0
cifar10 resnet20 magnitude 84.88±0.7 81.97±0.52 75.15±0.86
cifar10 resnet20 grasp 87.28±0.04 84.37±0.21 79.53±0.06
cifar10 resnet20 grasp-data-free 86.3±0.46 83.61±0.13 79.59±0.1
cifar10 resnet20 grasp-data-free-drawn 86.59±0.29 84.35±1.34 78.36±0.16
cifar10 resnet20 imp 89.63±0.24 85.99±1.3 82.46±0.73
cifar10 resnet20 imp-data-free 85.46±0.11 83.07±0.11 77.97±0.04
cifar10 resnet20 imp-data-free-drawn 85.5±0.15 82.77±0.13 77.54±0.49
cifar100 vgg19 random 66.02±0.13 62.7±0.57 58.28±0.25
cifar100 vgg19 magnitude 69.43±0.49 68.09±0.21 65.18±0.47
cifar100 vgg19 grasp 70.64±0.43 70.03±0.55 67.78±0.42
cifar100 vgg19 grasp-data-free 70.52±0.18 70.06±0.29 68.07±0.16
cifar100 vgg19 grasp-data-free-drawn 71.15±0.32 70.08±0.01 68.53±0.18
cifar100 vgg19 imp 70.88±0.96 69.87±1.28 67.9±1.36
cifar100 vgg19 imp-data-free 66.84±0.16 66.23±0.17 54.81±6.87
cifar100 vgg19 imp-data-free-drawn 67.1±0.21 65.3±0.23 59.05±0.14
cifar100 resnet20 random 51.09±0.43 26.61±3.51 1.0±0.0
cifar100 resnet20 magnitude 52.03±0.24 45.64±0.4 32.9±0.65
cifar100 resnet20 grasp 67.24±0.23 63.08±0.33 53.18±0.94
cifar100 resnet20 grasp-data-free 67.37±0.02 63.66±0.06 54.15±0.63
cifar100 resnet20 grasp-data-free-drawn 67.39±0.46 64.34±0.15 53.79±0.16
cifar100 resnet20 imp 58.38±2.97 50.39±0.16 40.88±0.22
cifar100 resnet20 imp-data-free 51.66±0.68 43.84±0.17 32.92±0.65
cifar100 resnet20 imp-data-free-drawn 52.05±0.6 44.68±0.38 33.37±0.74
"""

_TABLE_3 = """
tiny-imagenet resnet18 A 58.3 57.63 54.62
tiny-imagenet resnet18 C 60.64 58.57 55.56
tiny-imagenet wide-resnet A 59.25 57.49 54.8
tiny-imagenet wide-resnet C 60.22 58.84 55.54
"""

_TABLE_4 = """
cifar10 vgg19 snip 92.62±0.09 91.66±0.25 90.92±0.16
cifar10 vgg19 H 93.16±0.36 92.79±0.78 92.03±0.91
cifar10 resnet20 snip 86.29±0.92 82.55±1.02 78.16±0.8
cifar10 resnet20 H 87.02±0.65 83.72±0.73 79.39±0.49
cifar100 vgg19 snip 71.80±0.66 71.07±0.23 56.05±13.97
cifar100 vgg19 H 72.49±0.33 71.51±0.45 53.05±15.38
cifar100 resnet20 snip 67.03±0.04 61.80±0.38 49.42±0.65
cifar100 resnet20 H 67.52±0.10 62.68±0.32 51.76±0.36
"""

_CELL = re.compile(r"(?P<mean>[\d.]+)(±(?P<std>[\d.]+))?")


def _parse(text: str) -> Table:
    table: dict[Setting, dict[str, Printed]] = {}
    for line in text.split("\n")[1:-1]:
        dataset, model, column, *cells = line.split()
        for density, cell in zip(DENSITIES, cells, strict=True):
            found = _CELL.fullmatch(cell)
            assert found is not None, cell
            value = Printed(float(found["mean"]), float(found["std"]) if found["std"] else None)
            table.setdefault((dataset, model, density), {})[column] = value
    return table


PRINTED: dict[str, Table] = {
    "table1": _parse(_TABLE_1),
    "table2": _parse(_TABLE_2),
    "table3": _parse(_TABLE_3),
    "table4": _parse(_TABLE_4),
}


def gains(table: Table, one: str, other: str) -> list[float]:
    """Return mean(one) - mean(other) of every setting, in percentage points, as printed."""
    return [round(cells[one].mean - cells[other].mean, 2) for cells in table.values()]
