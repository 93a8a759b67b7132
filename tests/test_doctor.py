"""The doctor tells what is there, what is not, and how to get it."""

import sys

import pytest
import torch

from sparseprune import cli, doctor, ops


def named(checks):
    return {check.name: check for check in checks}


def test_it_names_every_library_and_every_operation():
    checks = named(doctor.examine())
    assert torch.__version__ in checks["torch"].found and checks["numpy"].ok
    assert {"python", "CUDA", "C++ extension", "triton", *doctor.EXTRAS} <= checks.keys()
    for name, served in ops.backends().items():
        assert all(f"{device}: {backend}" in checks[f"op {name}"].found for device, backend in served.items())
    assert (
        "cpu: reference, cuda" in checks["op masked_conv2d_dw"].found and "by design" in checks["op block_spmm"].found
    )
    assert "by design" not in checks["op spmm"].found
    assert all(check.remedy for check in checks.values() if not check.ok)
    assert all(not check.remedy for check in checks.values() if check.ok)


def test_a_missing_extension_is_told_with_its_reason_and_remedy(monkeypatch):
    monkeypatch.setattr(ops, "extension_error", lambda: "undefined symbol: x")
    checks = doctor.examine()
    extension = named(checks)["C++ extension"]
    assert not extension.ok and "undefined symbol: x" in extension.found and "compiler" in extension.remedy
    assert not doctor.healthy(checks)


@pytest.mark.parametrize(("module", "name"), [("triton", "triton"), ("sklearn", "scikit-learn"), ("PIL", "pillow")])
def test_a_missing_library_is_told(monkeypatch, module, name):
    monkeypatch.setitem(sys.modules, module, None)  # importing it raises ModuleNotFoundError
    check = named(doctor.examine())[name]
    assert not check.ok and check.found == "not installed" and "sparseprune[" in check.remedy
    assert check.required == (name == "triton")


def test_strict_insists_on_extension_and_triton_only(monkeypatch, capsys):
    def strict(*extra: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as exit_:
            cli.main(["doctor", *extra])
        return exit_.value.code or 0, capsys.readouterr().err

    monkeypatch.setattr(ops, "extension_error", lambda: None)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setattr(doctor, "_triton", lambda: doctor.Check("triton", "3", required=True))
    assert strict("--strict")[0] == 0
    monkeypatch.setattr(doctor, "_triton", lambda: doctor.Check("triton", "not installed", False, "pip", True))
    assert strict()[0] == 0
    assert strict("--strict") == (1, "sparseprune doctor: --strict needs triton\n")
    monkeypatch.setattr(ops, "extension_error", lambda: "no compiler")
    assert strict("--strict") == (1, "sparseprune doctor: --strict needs C++ extension, triton\n")
