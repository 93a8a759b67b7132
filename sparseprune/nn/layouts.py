"""How each sparse layer of a model stores its weight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from ._sparse import Sparse


@dataclass(frozen=True)
class LayerLayout:
    """One layer: the shape of its weight, the fraction kept, "masked" or "csr", and whether "auto" chose that."""

    shape: tuple[int, ...]
    density: float
    layout: str
    auto: bool


class Layouts(dict[str, LayerLayout]):
    """Layer name -> LayerLayout; its str() is a table."""

    def __str__(self) -> str:
        rows = [("layer", "shape", "density", "layout", "chosen by")]
        for name, layer in self.items():
            shape = "x".join(map(str, layer.shape))
            rows.append((name, shape, f"{layer.density:.4g}", layer.layout, "auto" if layer.auto else "caller"))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def layouts(model: nn.Module) -> Mapping[str, LayerLayout]:
    """Return the layout and density of every sparse layer of a model, and who chose it; str() of it is a table.

    Args:
        model: any module, a single sparse layer included (its name is "").
    """
    return Layouts(
        (name, LayerLayout(module.weight_shape, module.density, module.layout, module._chosen))
        for name, module in model.named_modules()
        if isinstance(module, Sparse)
    )
