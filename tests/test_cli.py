"""The command line: what it prints, what it leaves, and one clear line for every mistake."""

import builtins
import inspect
import json
import subprocess
import sys

import pytest
import torch

from sparseprune import cli, data, densities, inputs, models, scores, select
from sparseprune.cli.app import COMMANDS
from sparseprune.harness import Plan
from sparseprune.masks import Masks
from sparseprune.papers import random_ntk
from sparseprune.prune import SCOPES


@pytest.fixture(autouse=True)
def one_thread():
    """`run` sets the number of threads of the process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def call(capsys, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as exit_:
        cli.main(list(arguments))
    out, err = capsys.readouterr()
    return exit_.value.code or 0, out, err


def test_run_ends_with_table_lines_and_picture_and_resumes(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = ("run", "--method", "magnitude", "--density", ".5,.1", "--seeds", "1", "--epochs", "1")
    code, out, err = call(capsys, *flags)
    folder = tmp_path / "runs" / "digits-small-conv"
    assert code == 0 and err == ""
    assert "magnitude/multinomial" in out and "accuracy %" in out and "7/7 done" in out
    assert "digits, small-conv, 1 epochs, 1 paired seed(s)" in out
    for name in ("accuracy", "layers", "weights"):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG") and f"{name}.png" in out
    lines = (folder / "results.jsonl").read_text().splitlines()
    assert [json.loads(line)["key"]["density"] for line in lines] == [1.0] + [0.5] * 3 + [0.1] * 3
    code, out, _ = call(capsys, *flags)
    assert code == 0 and "7 of 7 results are there from before" in out and "magnitude/multinomial" in out
    assert (folder / "results.jsonl").read_text().splitlines() == lines


def test_the_table_is_not_cut_on_a_narrow_terminal(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    flags = ("--method", "synflow/without_replacement", "--density", "0.5", "--seeds", "1", "--epochs", "0")
    code, out, _ = call(capsys, "run", *flags, "--out", str(tmp_path))
    assert code == 0 and "synflow/without_replacement" in out and "…" not in out


def test_flags_reach_the_plan(tmp_path, capsys):
    flags = ["--model", "mlp", "--seeds", "1", "--epochs", "0", "--batch-size", "50", "--lr", "0.03", "--threads", "1"]
    flags += ["--method", "sketch(inputs=chi,redraw=False)/priority", "--density", "0.4", "--layout", "csr"]
    flags += ["--stack", "2", "--executor", "local"]
    code, _, _ = call(capsys, "run", *flags, "--out", str(tmp_path))
    key = json.loads((tmp_path / "results.jsonl").read_text().splitlines()[1])["key"]
    assert code == 0
    assert (key["model"], key["epochs"], key["batch_size"], key["lr"]) == ("mlp", 0, 50, 0.03)
    assert (key["method"], key["density"], key["device"]) == ("sketch(inputs=chi,redraw=False)/priority", 0.4, "cpu")
    assert key["layout"] == "csr"


def test_a_run_of_failures_alone_fails(tmp_path, capsys, monkeypatch):
    from sparseprune import harness

    def fail(*_):
        raise ValueError("no")

    monkeypatch.setattr(harness.units, "perform", fail)
    code, out, _ = call(
        capsys, "run", "--method", "magnitude", "--density", ".5", "--seeds", "1", "--out", str(tmp_path)
    )
    assert code == 1 and "failed: dense seed 0: ValueError: no" in out
    assert "failed: magnitude/threshold 0.5, 1 of 1 seed(s): ValueError: no" in out


def test_interruption_says_how_to_go_on(tmp_path, capsys, monkeypatch):
    from sparseprune import harness

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(harness.units, "perform", interrupt)
    code, _, err = call(capsys, "run", "--out", str(tmp_path))
    assert code == 130 and "the same command goes on from there" in err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("run", "--density", "1.5"), "run: density must be in (0, 1], got 1.5"),
        (("run", "--density", "half"), "run: density must be a number in (0, 1], got 'half'"),
        (("run", "--method", "synflo"), "got 'synflo'"),
        (("run", "--method", ","), "method must name at least one method"),
        (("run", "--model", "vgg"), "run: model must be one of"),
        (("run", "--dataset", "mnist"), "pass data_dir (--data-dir)"),
        (("run", "--dataset", "mnist", "--data-dir", "nowhere"), "data_dir must be an existing folder, got nowhere"),
        (("run", "--dataset", "svhn"), "run: dataset must be one of digits"),
        (("run", "--seeds", "0"), "seeds must be at least 1"),
        (("run", "--seeds", "many"), "'--seeds'"),
        (("run", "--threads", "0"), "threads must be at least 1"),
        (("run", "--device", "tpu0"), "device must be cpu, cuda or cuda:N"),
        (("run", "--executor", "slurm"), "run: executor must be one of local, ray, got 'slurm'"),
        (("run", "--stack", "0"), "run: stack must be auto or at least 1, got 0"),
        (("run", "--stack", "all"), "run: stack must be auto or at least 1, got 'all'"),
        (("run", "--method", "snip(mode=fast)"), "mode must be"),
        (("run", "--layout", "coo"), "run: layout must be one of masked, csr, auto, got 'coo'"),
        (("run", "--colour", "red"), "--colour"),
        (("walk",), "walk"),
        (("prune",), "density must be given"),
        (("prune", "--density", "0"), "prune: density must be in (0, 1], got 0"),
        (("prune", "--density", "0.1", "--score", "x"), "score must be one of"),
        (("prune", "--density", "0.1", "--out", "no/where"), "out must be in an existing folder"),
        (("prune", "--density", "0.1", "--weights", "absent.pt"), "absent.pt"),
        (("prune", "--density", "0.1", "--score", "snip"), "data"),
        (("reproduce",), "reproduce: paper must be one of 000, 001, 002, 003, 004, got None"),
        (("reproduce", "999"), "reproduce: paper must be one of 000, 001, 002, 003, 004, got '999'"),
        (("reproduce", "000", "E9"), "reproduce: item must be one of E1, E2, E3, E4"),
        (("bench", "--quick"), "bench: out and quick need --calibrate"),
        (("bench", "--out", "x.json"), "bench: out and quick need --calibrate"),
        (("bench", "--threads", "0"), "bench: threads must be at least 1, got 0"),
        (("bench", "--calibrate", "--out", "no/where"), "bench: out must be in an existing folder, got no/where"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(tmp_path, capsys, monkeypatch, arguments, reason):
    monkeypatch.chdir(tmp_path)
    code, out, err = call(capsys, *arguments)
    assert code == 2 and out == "" and err.count("\n") == 1 and err.startswith("sparseprune: ")
    assert reason in err and not any(tmp_path.iterdir())


def test_prune_prints_the_report_and_writes_the_masks(tmp_path, capsys):
    path = tmp_path / "ticket.safetensors"
    code, out, _ = call(capsys, "prune", "--density", "0.1", "--score", "synflow", "--out", str(path))
    masks = Masks.load(path)
    assert code == 0 and str(path) in out
    assert str(masks.report(models.build("small-conv", seed=0))) in out
    assert masks.kept == round(0.1 * masks.total)


def test_prune_trains_where_the_score_does(capsys):
    trained = ("prune", "--model", "mlp", "--density", "0.3", "--score", "edge_popup", "--dataset", "digits")
    assert call(capsys, *trained, "--epochs", "1")[0] == 0


def test_prune_scores_on_data_and_on_saved_weights(tmp_path, capsys):
    net = models.build("small-conv", seed=5)
    torch.save(net.state_dict(), tmp_path / "net.pt")
    out = tmp_path / "a.safetensors"
    flags = ["--density", "0.2", "--score", "snip", "--dataset", "digits", "--out", str(out)]
    assert call(capsys, "prune", *flags, "--weights", str(tmp_path / "net.pt"))[0] == 0
    first = Masks.load(out)
    assert call(capsys, "prune", *flags)[0] == 0
    assert any((first[name] != mask).any() for name, mask in Masks.load(out).items()), "other weights, another mask"
    torch.save({"x": torch.zeros(1)}, tmp_path / "net.pt")
    code, _, err = call(capsys, "prune", *flags, "--weights", str(tmp_path / "net.pt"))
    assert code == 2 and "must be a saved state_dict of the model" in err and err.count("\n") == 1


def test_bench_prints_the_speeds_whole(capsys, monkeypatch):
    row = {"layer": "linear " + 60 * "x", "work": "forward", "density": 0.1, "dense": 3.0, "masked": 4.5, "csr": 1.5}
    monkeypatch.setattr("sparseprune.ops.extension_error", lambda: None)
    monkeypatch.setattr("sparseprune.speeds.speeds", lambda progress: progress(1, 1) or [row])
    monkeypatch.setenv("COLUMNS", "40")
    code, out, err = call(capsys, "bench")
    assert code == 0 and err == "" and row["layer"] in out
    assert "2.00x" in out and "3.00x" in out and "4.500" in out


def test_bench_writes_a_table_and_says_how_to_use_it(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sparseprune.ops.extension_error", lambda: None)
    monkeypatch.setattr("sparseprune.calibrate._gain", lambda *_: 2.0)
    code, out, _ = call(capsys, "bench", "--calibrate", "--quick", "--threads", "1")
    assert code == 0 and f"export SPARSEPRUNE_CROSSOVER={tmp_path / 'crossover.json'}" in out
    content = json.loads((tmp_path / "crossover.json").read_text())
    assert content["environment"]["cores"] == 1 and content["linear"][0]["chained"] > 0.5
    monkeypatch.setattr("sparseprune.ops.extension_error", lambda: "no compiler")
    code, _, err = call(capsys, "bench", "--calibrate")
    assert code == 2 and "needs the compiled extension, without which csr never wins: no compiler" in err


def test_reproduce_prints_rows_and_verdicts_and_resumes(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(random_ntk, "QUICK", random_ntk.Sizes((16, 32), 32, draws=8, spread_draws=8))
    code, out, err = call(capsys, "reproduce", "000", "E3", "--quick", "--seed", "3")
    folder = tmp_path / "runs" / "000"
    assert code == 0 and err == ""
    assert "E3: Deviation from the limit at a fixed width" in out and "width 32" in " ".join(out.split())
    assert "n Var = A + B / alpha" in out and any(word in out for word in ("holds: ", "these rows cannot tell: "))
    assert str(folder.relative_to(tmp_path) / "E3.png") in out
    assert (folder / "E3.png").read_bytes().startswith(b"\x89PNG")
    lines = (folder / "E3.jsonl").read_text()
    assert [json.loads(line)["key"]["seed"] for line in lines.splitlines()] == [3] * 10
    progress, title, table = out.partition("           E3: Deviation")
    assert progress.count("% done: E3 fixed width, width 32") == 10
    assert call(capsys, "reproduce", "000", "E3", "--quick", "--seed", "3")[1] == title + table
    assert (folder / "E3.jsonl").read_text() == lines


def test_no_command_shows_the_help(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["sparseprune"])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    out = capsys.readouterr().out
    assert not exit_.value.code and all(command in out for command in COMMANDS)


def test_every_flag_has_its_help_and_names_what_it_takes(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    for command, module in COMMANDS.items():
        parameters = inspect.signature(getattr(module, command)).parameters
        told = getattr(module, "ARGUMENTS", {}) | module.FLAGS
        assert list(parameters) == list(told)
        shown = " ".join(call(capsys, command, "--help")[1].split())
        assert all(text in shown for text in told.values())
    prune, run = COMMANDS["prune"].FLAGS, COMMANDS["run"].FLAGS
    for flag, names in (
        ("model", models.MODELS), ("score", scores.names()), ("select", select.names()), ("dataset", data.names()),
        ("inputs", inputs.KINDS), ("scope", SCOPES), ("distribution", densities.RULES),
    ):  # fmt: skip
        assert all(name in prune[flag] for name in names)
    assert all(name in run["dataset"] for name in data.names())
    assert ".5,.2,.1,.05" in run["density"] and Plan().densities == (0.5, 0.2, 0.1, 0.05)
    assert ",".join(Plan().methods) in run["method"]


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_the_extra_it_says_how_to_get_it(capsys, monkeypatch, missing):
    original = builtins.__import__

    def without(name, *rest):
        if name.partition(".")[0] == missing:
            raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)
        return original(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    code, out, err = call(capsys, "doctor")
    assert code == 2 and out == ""
    assert err == f'sparseprune: the command line needs {missing}: pip install "sparseprune[cli]"\n'


def test_as_a_module():
    done = subprocess.run([sys.executable, "-m", "sparseprune", "run", "--seeds", "0"], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr == "sparseprune: run: seeds must be at least 1, got 0\n"


def test_run_says_when_the_extension_is_missing(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sparseprune.ops.extension_error", lambda: "no compiler")
    flags = ("--method", "magnitude/threshold", "--density", "0.5", "--seeds", "1", "--epochs", "0")
    code, out, _ = call(capsys, "run", *flags, "--out", str(tmp_path))
    assert code == 0 and "slower: no compiler (sparseprune doctor)" in " ".join(out.split())
