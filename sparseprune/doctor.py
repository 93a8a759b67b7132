"""What is installed, which implementation serves each operation, and how to get what is missing."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass

EXTRAS = {
    "typer": "cli",
    "rich": "cli",
    "matplotlib": "cli",
    "safetensors": "cli",
    "scikit-learn": "cli",
    "pillow": "cli",
}
# A CPU multiplies masks and blocks as dense weights, by torch: these have no C++ of their own, and need none.
TORCH_ON_CPU = ("masked_linear", "masked_conv2d", "block_spmm", "block_sddmm")
_MODULES = {"scikit-learn": "sklearn", "pillow": "PIL"}


@dataclass(frozen=True)
class Check:
    """One line of the report.

    Args:
        name: what was looked at.
        found: a version or a state in words.
        ok: whether it is there.
        remedy: how to get it, empty where nothing is missing.
        required: whether `--strict` insists on it.
    """

    name: str
    found: str
    ok: bool = True
    remedy: str = ""
    required: bool = False


def examine() -> list[Check]:
    """Return the checks: interpreter and libraries, extension, triton, CUDA, then one line an operation."""
    import torch

    return [
        Check("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        Check("torch", f"{torch.__version__}, {torch.get_num_threads()} of {os.cpu_count()} threads"),
        _package("numpy", 'pip install "numpy"'),
        *(_package(name, f'pip install "sparseprune[{extra}]"') for name, extra in EXTRAS.items()),
        _extension(),
        _triton(),
        _cuda(),
        *_operations(),
    ]


def healthy(checks: list[Check]) -> bool:
    """Return whether everything that `--strict` insists on is there: the compiled extension and triton."""
    return all(check.ok for check in checks if check.required)


def _package(name: str, remedy: str) -> Check:
    return _attempt(name, lambda: _version(name), remedy)


def _version(name: str) -> str:
    importlib.import_module(_MODULES.get(name, name))
    return importlib.metadata.version(name)


def _attempt(name: str, find: Callable[[], str], remedy: str, *, required: bool = False) -> Check:
    try:
        return Check(name, find(), required=required)
    except Exception as error:  # a broken installation raises anything at import
        reason = "not installed" if isinstance(error, ModuleNotFoundError) else f"{type(error).__name__}: {error}"
        return Check(name, reason, False, remedy, required)


def _extension() -> Check:
    from . import ops

    error = ops.extension_error()
    if error is None:
        return Check("C++ extension", "loaded", required=True)
    remedy = "install a C++20 compiler (e.g. apt install g++), then: pip install --no-build-isolation -e ."
    return Check("C++ extension", f"not loaded: {error}", False, remedy, required=True)


def _triton() -> Check:
    def find() -> str:
        version = _version("triton")
        interpreted = os.environ.get("TRITON_INTERPRET") == "1"
        return (
            f"{version}, {'interpreter on (TRITON_INTERPRET=1)' if interpreted else 'TRITON_INTERPRET=1 runs it here'}"
        )

    return _attempt("triton", find, 'pip install "sparseprune[triton]"', required=True)


def _cuda() -> Check:
    import torch

    if torch.cuda.is_available():
        return Check("CUDA", f"{torch.cuda.get_device_name(0)}, torch built for CUDA {torch.version.cuda}")
    built = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch is a CPU build"
    return Check("CUDA", f"no device ({built})", False, "needs an NVIDIA GPU and a CUDA build of torch; not required")


def _operations() -> list[Check]:
    from . import ops

    checks = []
    for name, served in ops.backends().items():
        found = ", ".join(f"{device}: {backend}" for device, backend in served.items())
        by_design = name.startswith(TORCH_ON_CPU) and served["cpu"] == "reference"
        checks.append(Check(f"op {name}", found + " (on a CPU torch itself, by design)" * by_design))
    return checks
