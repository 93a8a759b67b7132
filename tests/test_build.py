"""The rules of the build, each with the day it stops holding."""

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import torch

from sparseprune import doctor, ops

ROOT = Path(__file__).parent.parent


def extension() -> Path:
    return next((ROOT / "sparseprune").glob("_C*.so"))


def test_the_extension_serves_every_op_on_the_cpu_but_those_that_are_torchs_there():
    assert ops.extension_error() is None
    for name, backend in ops.backends().items():
        assert backend["cpu"] == ("reference" if name.startswith(doctor.TORCH_ON_CPU) else "c++"), name
    for name in ops.backends():
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"sparseprune::{name}", "CPU")


def test_the_extension_uses_only_the_stable_abi():
    """One abi3 binary for every torch >= 2.11: no C++ symbol of ATen or c10, no Python outside the limited API."""
    symbols = subprocess.run(
        ["nm", "-D", "-C", "--undefined-only", extension()], capture_output=True, text=True, check=True
    )
    names = [line.split(maxsplit=1)[1] for line in symbols.stdout.splitlines() if " U " in line]
    assert names
    assert not [name for name in names if "at::" in name or "c10::" in name]
    assert any("aoti_torch_" in name or "torch_" in name for name in names)
    assert extension().name == "_C.abi3.so"


def test_the_flags_that_the_samplers_bits_depend_on():
    text = (ROOT / "setup.py").read_text()
    assert "-ffp-contract=off" in text and "0x020b000000000000" in text
    code = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    assert "-march=native" not in code and "-ffast-math" not in code


def run(code: str, cwd: Path, **env: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, check=True
    )
    return result.stdout.strip()


def test_import_is_light(tmp_path):
    """No triton, no plotting, no command line, no file format: torch and numpy only."""
    heavy = ["triton", "matplotlib", "typer", "rich", "safetensors", "sklearn", "PIL", "scipy"]
    code = f"import sparseprune, sys; print([m for m in {heavy} if m in sys.modules])"
    assert run(code, tmp_path) == "[]"


def test_kernels_install_as_a_subpackage_from_any_folder(tmp_path):
    code = "import sparseprune.kernels as k; print(k.__name__, k.__file__)"
    name, file = run(code, tmp_path, TRITON_INTERPRET="1").split()
    assert name == "sparseprune.kernels"
    assert Path(file).parent.name == "kernels"


def test_everything_runs_without_the_extension(tmp_path):
    """A machine with no compiler: the reference serves, with the same bits, and the doctor says so."""
    code = (
        "import sys; sys.modules['sparseprune._C'] = None\n"
        "import torch, sparseprune as sp\n"
        "from sparseprune import ops\n"
        "x = torch.arange(1, 9001, dtype=torch.float32)\n"
        "print(ops.extension_error() is not None, ops.backends()['draw_tiles']['cpu'],\n"
        "      int(sp.sampling.multinomial(x, 500, seed=7, output='indices').sum()))"
    )
    with_extension = code.split("\n", 1)[1]
    missing, serving, total = run(code, tmp_path).split()
    assert (missing, serving) == ("True", "reference")
    assert run(with_extension, tmp_path).split()[2] == total


def test_a_source_distribution_holds_all_that_the_build_needs(tmp_path):
    """A missing header would not fail an installation: it would go on without the extension."""
    for name in ("csrc", "kernels", "sparseprune"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    for name in ("pyproject.toml", "setup.py", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "README.md").touch()
    command = [sys.executable, "setup.py", "-q", "sdist", "--formats=tar"]
    subprocess.run(command, cwd=tmp_path, capture_output=True, check=True)
    with tarfile.open(next((tmp_path / "dist").glob("*.tar"))) as archive:
        packed = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    needed = [file for name in ("csrc", "kernels", "sparseprune") for file in (tmp_path / name).rglob("*.*")]
    assert {str(file.relative_to(tmp_path)) for file in needed} | {"setup.py", "LICENSE"} <= packed


@pytest.mark.parametrize("name", ["demo", "test", "lint", "compile", "bench", "gpu"])
def test_the_makefile_has_the_documented_targets(name):
    assert f"\n{name}:" in (ROOT / "Makefile").read_text()
