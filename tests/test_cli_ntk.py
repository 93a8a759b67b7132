"""`sparseprune ntk`: what it prints, what it writes, and one clear line for every mistake."""

import numpy as np
import pytest
import torch

from sparseprune import cli, models, ntk, prune, sparsify
from sparseprune.data import load


def call(capsys, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as exit_:
        cli.main(["ntk", *arguments])
    out, err = capsys.readouterr()
    return exit_.value.code or 0, out, err


def expected(**options) -> torch.Tensor:
    """The kernel that the command's defaults describe, of the pruned mlp on 12 digits."""
    data = load("digits")
    net = models.build("mlp", seed=0, classes=10, input_shape=data.input_shape).eval()
    masks = prune(net, 0.1, score="synflow", data=data.scoring_batches(seed=0), seed=0)
    x, _ = next(iter(data.scoring_batches(12, batch_size=12, seed=0)))
    return ntk.empirical(sparsify(net, masks, layout="masked"), x, **options)


def test_it_prints_what_it_took_and_the_spectrum_and_writes_the_kernel(tmp_path, capsys):
    path = tmp_path / "kernel.npy"
    code, out, err = call(capsys, "mlp", "--density", ".1", "--examples", "12", "--out", str(path))
    assert code == 0 and err == ""
    assert "mlp, density 0.1" in out and "on 12 examples of digits" in out
    assert "implementation: gram (every trainable parameter" in out and f"written to {path}" in out
    kernel = torch.from_numpy(np.load(path))
    assert torch.equal(kernel, expected())
    largest = torch.linalg.eigvalsh(kernel.double())[-1].item()
    assert f"largest eigenvalues: {largest:.5g}," in out
    assert all(line in out for line in ("condition number: ", "effective rank: ", "alignment with the labels: 0."))


def test_layouts_outputs_and_implementations_agree(tmp_path, capsys):
    flags = ["mlp", "--density", ".1", "--examples", "12", "--out", str(tmp_path / "k.npy")]
    full = expected(outputs="full")
    for more in (["--layout", "csr"], ["--implementation", "jacobian"], ["--layout", "auto"]):
        assert call(capsys, *flags, "--outputs", "full", *more)[0] == 0
        torch.testing.assert_close(torch.from_numpy(np.load(tmp_path / "k.npy")), full, rtol=1e-4, atol=1e-3)


def test_masks_and_weights_from_files(tmp_path, capsys):
    net = models.build("mlp", seed=5, classes=10, input_shape=(1, 8, 8))
    torch.save(net.state_dict(), tmp_path / "net.pt")
    masks = prune(net, 0.2, seed=1)
    masks.save(tmp_path / "masks.safetensors")
    flags = ["--masks", str(tmp_path / "masks.safetensors"), "--weights", str(tmp_path / "net.pt")]
    code, out, _ = call(capsys, "mlp", "--examples", "10", *flags, "--out", str(tmp_path / "k.npy"))
    assert code == 0 and f"({masks.kept:,} of {masks.total:,} kept)" in out
    x, _ = next(iter(load("digits").scoring_batches(10, batch_size=10, seed=0)))
    assert torch.equal(
        torch.from_numpy(np.load(tmp_path / "k.npy")), ntk.empirical(sparsify(net, masks, layout="masked"), x)
    )


def test_without_density_the_net_is_dense(capsys):
    code, out, _ = call(capsys, "--examples", "4")
    assert code == 0 and "small-conv, dense, on 4 examples" in out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("vgg",), "build: name must be one of"),
        (("mlp", "--density", "1.5"), "prune: density must be in (0, 1], got 1.5"),
        (("mlp", "--density", "0"), "prune: density must be in (0, 1], got 0"),
        (("mlp", "--density", ".1", "--layout", "coo"), "layout must be"),
        (("mlp", "--density", ".1", "--masks", "m.safetensors"), "ntk: masks must be given without density"),
        (("mlp", "--examples", "0"), "ntk: examples must be at least 1, got 0"),
        (("mlp", "--outputs", "mean"), "outputs must be one of 'trace', 'full', got 'mean'"),
        (("mlp", "--implementation", "fast"), "implementation must be one of"),
        (("mlp", "--dataset", "mnist"), "pass data_dir (--data-dir)"),
        (("mlp", "--masks", "absent.safetensors"), "absent.safetensors"),
        (("mlp", "--weights", "absent.pt"), "absent.pt"),
        (("mlp", "--out", "no/where"), "ntk: out must be in an existing folder, got no/where"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(tmp_path, capsys, monkeypatch, arguments, reason):
    monkeypatch.chdir(tmp_path)
    code, out, err = call(capsys, *arguments)
    assert code == 2 and out == "" and err.count("\n") == 1 and err.startswith("sparseprune: ")
    assert reason in err and not any(tmp_path.iterdir())
