"""Masks: which weights are kept, with a report, a file format and the way to and from torch.nn.utils.prune."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .files import write_whole
from .paths import effective
from .shards import full, local, nonzero

_FORMAT = "sparseprune.masks.v1"
_FLOATS = {
    str(dtype).removeprefix("torch."): dtype for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64)
}


class Masks(Mapping[str, Tensor]):
    """Map parameter names to masks: bool, or float m = count/(s p) for rescaled sketches; non-zero = kept.

    Masks of a model that is spread over ranks are DTensors, placed like its parameters. What looks at all of such a
    mask (`==`, `kept`, `density`, `collapsed`, `report`, `save`, `full`) must be called by all ranks.

    Args:
        masks: parameter name -> tensor of the parameter's shape, bool or floating and finite.
        seed: the seed they were made with, kept in the file.
        groups: parameter name -> groups of its convolution where not 1, so that dead inputs are counted right.

    Raises:
        ValueError: no mask, one that is no tensor or neither bool nor floating, or a value that is not finite.
    """

    def __init__(
        self, masks: Mapping[str, Tensor], *, seed: int | None = None, groups: Mapping[str, int] | None = None
    ) -> None:
        if not masks:
            raise ValueError("Masks: masks must hold at least one mask, got none")
        for name, mask in masks.items():
            if not isinstance(mask, Tensor):
                raise ValueError(f"Masks: mask of {name!r} must be a tensor, got {type(mask).__name__}")
            if mask.dtype is not torch.bool and mask.dtype not in _FLOATS.values():
                raise ValueError(f"Masks: mask of {name!r} must be bool or floating, got {mask.dtype}")
            if mask.is_floating_point() and not local(mask).isfinite().all():
                raise ValueError(f"Masks: mask of {name!r} must be finite, got NaN or infinity")
        self._masks = dict(masks)
        self.seed = seed
        self.groups = {name: g for name, g in (groups or {}).items() if name in masks and g != 1}

    def __getitem__(self, name: str) -> Tensor:
        return self._masks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._masks)

    def __len__(self) -> int:
        return len(self._masks)

    def __eq__(self, other: object) -> bool:
        """Return whether both hold the same names, dtypes and values."""
        if not isinstance(other, Masks):
            return NotImplemented
        return self.keys() == other.keys() and all(
            mask.dtype == other[name].dtype and torch.equal(full(mask).cpu(), full(other[name]).cpu())
            for name, mask in self.items()
        )

    def __repr__(self) -> str:
        return f"Masks({len(self)} layers, {self.kept:,} of {self.total:,} kept, density {self.density:.6g})"

    @property
    def kept(self) -> int:
        """Number of weights kept."""
        return sum(map(nonzero, self.values()))

    @property
    def total(self) -> int:
        """Number of prunable weights."""
        return sum(mask.numel() for mask in self.values())

    @property
    def density(self) -> float:
        """Fraction kept."""
        return self.kept / max(self.total, 1)

    @property
    def collapsed(self) -> bool:
        """Whether some layer keeps nothing."""
        return not all(map(nonzero, self.values()))

    def report(self, model: nn.Module | None = None, *, input_shape: Sequence[int] | None = None) -> Report:
        """Return kept, density and dead inputs and outputs per layer; its str() is a table that flags collapse.

        Args:
            model: counts, too, the kept weights that lie on a path from the inputs to the outputs: without any, a layer
                has collapsed though it keeps some (`sparseprune.paths.effective`, which costs a forward and backward).
            input_shape: of one sample, where the model does not tell.
        """
        whole = {name: full(mask) for name, mask in self.items()}
        used = {} if model is None else effective(model, whole, input_shape=input_shape)
        return Report(tuple(_row(n, mask, self.groups.get(n, 1), used.get(n)) for n, mask in whole.items()))

    def full(self) -> Masks:
        """Return plain masks, whole on every rank; those that are plain already as they are.

        Cost: a gather of every DTensor.
        """
        return Masks({name: full(mask) for name, mask in self.items()}, seed=self.seed, groups=self.groups)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the masks as safetensors: 1 bit a weight for bool masks, names, shapes, seed and hash in the metadata.

        The file appears whole or not at all; its folder is created. All ranks of DTensors must call this; each writes
        the same content, and may do so to the same path. Cost: numel/8 bytes for bool masks.
        """
        from safetensors.torch import save

        arrays = {name: _packed(full(mask)) for name, mask in self.items()}
        layout = {
            name: {
                "shape": list(mask.shape),
                "dtype": str(mask.dtype).removeprefix("torch."),
                "groups": self.groups.get(name, 1),
            }
            for name, mask in self.items()
        }
        header = json.dumps({"masks": layout, "seed": self.seed})
        metadata = {"format": _FORMAT, "header": header, "sha256": _digest(header, arrays)}
        write_whole(Path(path), lambda stream: stream.write(save(arrays, metadata)))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Masks:
        """Read masks written by `save`, on the CPU.

        Raises:
            FileNotFoundError: no such file.
            ValueError: truncated, foreign or altered file; the message names it.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        except SafetensorError as error:
            raise ValueError(f"Masks.load: {path} must be a whole safetensors file, got: {error}") from None
        if metadata.get("format") != _FORMAT:
            raise ValueError(f"Masks.load: {path} must be a mask file ({_FORMAT}), got {metadata.get('format')!r}")
        header = metadata.get("header", "")
        if metadata.get("sha256") != _digest(header, arrays):
            raise ValueError(f"Masks.load: {path} must match its own sha256, got other content: it was altered")
        content = json.loads(header)
        masks = {
            name: _unpacked(arrays[name], entry["shape"], entry["dtype"]) for name, entry in content["masks"].items()
        }
        return cls(masks, seed=content["seed"], groups={n: e["groups"] for n, e in content["masks"].items()})

    def apply_torch_prune(self, model: nn.Module) -> nn.Module:
        """Hand the masks to torch.nn.utils.prune: each layer gets `weight_orig` and `weight_mask`, in place.

        A float mask keeps its values: the layer computes with weight_orig * m.

        Returns:
            The same model.

        Raises:
            ValueError: a name that is no parameter of the model, or another shape; before anything is changed.
        """
        from torch.nn.utils import prune

        parameters = dict(model.named_parameters())
        for name, mask in self.items():
            if name not in parameters:
                raise ValueError(f"apply_torch_prune: masks must name parameters of the model, got {name!r}")
            if parameters[name].shape != mask.shape:
                raise ValueError(
                    f"apply_torch_prune: mask of {name!r} must have shape {list(parameters[name].shape)}, "
                    f"got {list(mask.shape)}"
                )
        for name, mask in self.items():
            module, _, tensor = name.rpartition(".")
            prune.custom_from_mask(model.get_submodule(module), tensor, mask.to(parameters[name].device))
        return model

    @classmethod
    def from_torch_prune(cls, model: nn.Module) -> Masks:
        """Collect the `weight_mask` buffers of a model pruned with torch.nn.utils.prune.

        Masks of zeros and ones become bool; names are those of the parameters before pruning.

        Raises:
            ValueError: no module has such a buffer.
        """
        masks: dict[str, Tensor] = {}
        groups: dict[str, int] = {}
        for name, module in model.named_modules():
            mask = dict(module.named_buffers(recurse=False)).get("weight_mask")
            if mask is not None:
                key = f"{name}.weight" if name else "weight"
                masks[key] = mask.bool() if ((mask == 0) | (mask == 1)).all() else mask.clone()
                groups[key] = getattr(module, "groups", 1)
        if not masks:
            raise ValueError("from_torch_prune: model must have weight_mask buffers, got none")
        return cls(masks, groups=groups)


@dataclass(frozen=True)
class Row:
    """One layer of a report: dead inputs (outputs) are coordinates that no kept weight reads (writes).

    `effective`: kept weights on a path from the inputs to the outputs; None: not looked at.
    """

    name: str
    shape: tuple[int, ...]
    kept: int
    total: int
    dead_inputs: int
    dead_outputs: int
    effective: int | None = None

    @property
    def density(self) -> float:
        """Fraction kept."""
        return self.kept / max(self.total, 1)

    @property
    def collapsed(self) -> bool:
        """Whether the layer keeps nothing, or nothing that is on a path."""
        return self.kept == 0 or self.effective == 0


@dataclass(frozen=True)
class Report:
    """Rows per layer; str() is an aligned table that ends in the achieved density and a line on collapse."""

    rows: tuple[Row, ...]

    @property
    def kept(self) -> int:
        """Number of weights kept."""
        return sum(row.kept for row in self.rows)

    @property
    def total(self) -> int:
        """Number of prunable weights."""
        return sum(row.total for row in self.rows)

    @property
    def density(self) -> float:
        """Fraction kept."""
        return self.kept / max(self.total, 1)

    @property
    def collapsed(self) -> tuple[str, ...]:
        """Names of the layers that keep nothing, or nothing that is on a path."""
        return tuple(row.name for row in self.rows if row.collapsed)

    @property
    def cut(self) -> bool:
        """Whether no kept weight is on a path; False where that was not looked at."""
        return all(row.effective == 0 for row in self.rows)

    def __str__(self) -> str:
        header = ("layer", "shape", "kept", "total", "density", "dead in", "dead out", "")
        if self.rows[0].effective is not None:
            header = (*header[:-1], "on a path", "")
        cells = [header, *(_cells(row) for row in self.rows)]
        widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
        lines = [
            "  ".join(
                cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            )
            for row in cells
        ]
        dead = self.collapsed
        verdict = f"COLLAPSE: nothing kept in {', '.join(dead)}" if dead else "no layer collapsed"
        if self.cut:
            verdict = "COLLAPSE: no path of kept weights from the inputs to the outputs"
        lines += [f"achieved density {self.density:.6g} ({self.kept:,} of {self.total:,} kept)", verdict]
        return "\n".join(line.rstrip() for line in lines)


def _cells(row: Row) -> tuple[str, ...]:
    shape = "x".join(map(str, row.shape))
    flag = "COLLAPSED" if row.collapsed else ""
    used = () if row.effective is None else (f"{row.effective:,}",)
    dead = (str(row.dead_inputs), str(row.dead_outputs))
    numbers = (f"{row.kept:,}", f"{row.total:,}", f"{row.density:.4g}", *dead, *used)
    return (row.name, shape, *numbers, flag)


def _row(name: str, mask: Tensor, groups: int, used: int | None) -> Row:
    kept = mask != 0
    if kept.dim() < 2:
        return Row(name, tuple(mask.shape), int(kept.sum()), mask.numel(), 0, int((~kept).sum()), used)
    # [groups, outputs per group, inputs per group, kernel]: an input belongs to the outputs of its own group only.
    blocks = kept.reshape(groups, kept.shape[0] // groups, kept.shape[1], math.prod(kept.shape[2:]))
    read, written = blocks.any(dim=3).any(dim=1), blocks.any(dim=3).any(dim=2)
    dead = int((~read).sum()), int((~written).sum())
    return Row(name, tuple(mask.shape), int(kept.sum()), mask.numel(), *dead, used)


def _packed(mask: Tensor) -> Tensor:
    flat = mask.detach().cpu().contiguous()
    # Cloned: safetensors refuses two names for one memory, which layers may well share.
    return torch.from_numpy(np.packbits(flat.numpy().reshape(-1))) if flat.dtype is torch.bool else flat.clone()


def _unpacked(array: Tensor, shape: list[int], dtype: str) -> Tensor:
    if dtype != "bool":
        return array
    bits = np.unpackbits(array.numpy(), count=math.prod(shape))
    return torch.from_numpy(bits.view(np.bool_)).reshape(shape)


def _digest(header: str, arrays: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(header.encode())
    for name in sorted(arrays):
        digest.update(name.encode())
        digest.update(arrays[name].contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
