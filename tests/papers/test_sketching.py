"""Paper 001's tables: the printed numbers' own counts, rows that resume and are shared, verdicts that follow them."""

import math
import statistics
from itertools import product

import pytest

from sparseprune.methods import Method
from sparseprune.paired import Paired
from sparseprune.papers import PAPERS
from sparseprune.papers import sketching_tables as tables
from sparseprune.papers._sketching_printed import PRINTED, gains
from sparseprune.papers._statistics import sign_test

ITEMS = {item.name: item for item in tables.ITEMS}
TINY = tables.Size((("digits", "mlp"), ("digits", "small-conv")), (0.5,), 1, epochs=0)


@pytest.mark.parametrize(
    "item, one, other, wins, ties",
    [
        ("table1", "C", "A", 9, 0),
        ("table1", "B", "A", 7, 0),
        ("table1", "D", "A", 11, 0),
        ("table1", "F", "E", 9, 1),
        ("table1", "G", "E", 8, 0),
        ("table1", "H", "G", 12, 0),
        ("table1", "H", "E", 11, 0),
        ("table2", "grasp-data-free-drawn", "grasp-data-free", 9, 0),
        ("table2", "imp-data-free-drawn", "imp-data-free", 8, 0),
        ("table2", "magnitude", "random", 11, 0),
        ("table3", "C", "A", 6, 0),
        ("table4", "H", "snip", 11, 0),
    ],
)
def test_wins_of_the_printed_tables(item, one, other, wins, ties):
    found = Paired.of(gains(PRINTED[item], one, other))
    assert found and (found.wins, found.ties) == (wins, ties)
    assert found.wins + found.ties + found.losses == len(PRINTED[item])


def test_mean_gains_of_the_printed_table():
    table = PRINTED["table1"]
    assert statistics.fmean(gains(table, "C", "A")) == pytest.approx(0.52, abs=0.005)
    assert statistics.fmean(gains(table, "H", "G")) == pytest.approx(1.245, abs=0.005)


def test_the_printed_tables_are_whole_and_agree_with_each_other():
    assert [len(table) for table in PRINTED.values()] == [12, 12, 6, 12]
    assert [{len(cells) for cells in table.values()} for table in PRINTED.values()] == [{8}, {8}, {2}, {2}]
    for setting, cells in PRINTED["table4"].items():
        assert cells["H"] == PRINTED["table1"][setting]["H"]
    assert PRINTED["table1"]["cifar100", "vgg19", 0.02]["E"] == (1.0, None)
    assert PRINTED["table1"]["cifar100", "vgg19", 0.02]["H"] == (53.05, 15.38)


def test_sign_test_against_enumeration():
    for wins, losses in ((9, 3), (12, 0), (5, 5), (1, 0), (2, 7)):
        n = wins + losses
        as_uneven = sum(abs(2 * sum(signs) - n) >= abs(wins - losses) for signs in product((0, 1), repeat=n))
        assert sign_test(wins, losses) == pytest.approx(as_uneven / 2**n)
    assert sign_test(0, 0) == 1.0


@pytest.mark.parametrize("column", tables.COLUMNS)
def test_methods_are_those_of_the_columns(column):
    method = Method.parse(tables.method(column, "cifar10", "resnet20"))
    label = tables.COLUMNS[column][0]
    assert ("random mask" in label) == (method.select.name == "without_replacement")
    assert method.arguments.get("select_at") == ("each" if "at each" in label else None)
    kind = next((kind for kind in ("chi", "normal", "sparse") if kind in label), None)
    assert method.arguments.get("inputs") == kind
    assert getattr(method.score, "rewind", 2000) == 2000


def test_the_full_size_is_the_papers():
    assert ITEMS["table1"].full == tables.Size(
        (("cifar10", "vgg19"), ("cifar10", "resnet20"), ("cifar100", "vgg19"), ("cifar100", "resnet20")),
        (0.1, 0.05, 0.02),
        3,
    )
    assert ITEMS["table3"].full.nets == (("tiny-imagenet", "resnet18"), ("tiny-imagenet", "wide-resnet"))
    recipe = tables.Plan("cifar100", "vgg19").recipe
    assert (recipe.epochs, recipe.batch_size, recipe.lr) == (160, 128, 0.1)


def made_up(accuracies):
    """A stand-in for trainings: accuracy by column, a little of its own for each seed and density."""

    def run_unit(unit, dataset, folder, watcher, deliver):
        for job in unit:
            watcher.stepped(job, 1, 2)
            columns = {tables.method(column, job.dataset, job.model): column for column in tables.COLUMNS}
            own = 0.001 * math.sin(10 * job.seed + 100 * job.density)
            row = {"key": job.key, "density": job.density, "collapsed": []}
            deliver(job, row | {"accuracy": accuracies.get(columns.get(job.method), 0.9) + own})

    return run_unit


def run(item, out, monkeypatch, accuracies=None, **options):
    monkeypatch.setattr(tables, "run_unit", made_up(accuracies or {}))
    options = {"quick": True, "data_dir": None, "progress": None} | options
    return PAPERS["001"][item].rows(out=out, **options)


@pytest.mark.parametrize("name", ITEMS)
def test_rows_table_picture_and_claims_and_a_second_run_trains_nothing(name, tmp_path, monkeypatch):
    experiment, told = PAPERS["001"][name], []
    rows = run(name, tmp_path, monkeypatch, progress=lambda done, total, what: told.append((done / total, what)))
    shares = [share for share, _ in told]
    assert shares == sorted(shares) and shares[-1] == 1 and all(what.startswith(name) for _, what in told)
    monkeypatch.setattr(tables, "run_unit", None)
    assert experiment.rows(out=tmp_path, quick=True, data_dir=None, progress=None) == rows
    size = ITEMS[name].quick
    lines = experiment.shown(rows)
    assert len(lines) == len(size.nets) * (1 + len(size.densities) * len(ITEMS[name].columns))
    assert all(line["ours"] for line in lines) and sum(bool(line["paper"]) for line in lines) > len(lines) / 2
    experiment.picture(rows, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    assert all(claim.text and claim.found for claim in experiment.claims(rows))


def test_a_table_takes_over_what_another_has_trained(tmp_path, monkeypatch):
    first = run("table1", tmp_path, monkeypatch)
    trained = []
    train = made_up({})
    monkeypatch.setattr(tables, "run_unit", lambda unit, *rest: trained.extend(unit) or train(unit, *rest))
    rows = PAPERS["001"]["table4"].rows(out=tmp_path, quick=True, data_dir=None, progress=None)
    assert {job.method for job in trained} == {"snip/threshold"}
    assert [row for row in rows if row in first] == [row for row in rows if row["key"]["method"] != "snip/threshold"]


def test_seeds_are_other_trainings(tmp_path, monkeypatch):
    runs = [run("table4", tmp_path, monkeypatch, seed=seed) for seed in (0, 1)]
    assert [{row["key"]["seed"] for row in rows} for rows in runs] == [{0, 1, 2, 3}, {4, 5, 6, 7}]


def test_verdicts_follow_the_rows(tmp_path, monkeypatch):
    rows = run("table1", tmp_path, monkeypatch, {"C": 0.92, "G": 0.8, "H": 0.95})
    holds = {claim.text: claim.holds for claim in PAPERS["001"]["table1"].claims(rows)}
    assert holds["SynFlow + random mask (C) >= SynFlow (A)"] is True
    assert holds["SynFlow + chi (B) >= SynFlow (A)"] is None  # equal everywhere
    assert holds["SNIP + sparse data (G) >= SNIP + normal data (E)"] is False
    assert holds["SNIP + sparse data + random mask (H) >= SNIP + sparse data (G)"] is True
    rows = run("table2", tmp_path, monkeypatch, {"grasp-data-free": 0.895, "imp-data-free": 0.7})
    holds = {claim.text: claim.holds for claim in PAPERS["001"]["table2"].claims(rows)}
    assert holds["GraSP + normal data loses less than 1 point against GraSP"] is True
    assert holds["IMP + normal data loses less than 1 point against IMP"] is False


def test_a_net_at_chance_without_a_flag_is_told(tmp_path, monkeypatch):
    rows = run("table4", tmp_path, monkeypatch, {"snip": 0.1})
    *_, claim = PAPERS["001"]["table4"].claims(rows)
    assert claim.holds is False
    flagged = [row | {"collapsed": ["a layer"]} for row in rows]
    assert PAPERS["001"]["table4"].claims(flagged)[-1].holds is True


def test_a_line_has_our_number_the_gain_and_the_papers(tmp_path, monkeypatch):
    rows = run("table1", tmp_path, monkeypatch, {"C": 0.92})
    lines = {line["key"]["column"][:2]: line for line in PAPERS["001"]["table1"].shown(rows) if line["gain"]}
    assert lines["H "]["gain"] == "+0.00 over G" and lines["D*"]["gain"] == "+0.00 over A"
    row = next(line for line in PAPERS["001"]["table1"].shown(rows) if line["key"]["column"].startswith("C "))
    assert row["gain"] == "+2.00 over A" and row["ours"] == "91.98 ± 0.07"
    assert row["paper"] == "71.89 (mean of 4)"  # density .05: 92.44, 83.55, 68.65, 42.92
    vgg = {**row["key"], "method": "synflow/without_replacement", "seed": 0, "dataset": "cifar10", "model": "vgg19"}
    base = {**vgg, "method": "synflow/threshold"}
    rows = [{"key": base, "accuracy": 0.9}, {"key": vgg, "accuracy": 0.9}]
    assert PAPERS["001"]["table1"].shown(rows)[1]["paper"] == "92.44"


def test_a_real_run_of_a_small_table(tmp_path, monkeypatch):
    monkeypatch.setattr(tables.Item, "full", TINY)
    rows = PAPERS["001"]["table1"].rows(out=tmp_path, quick=False, data_dir=None, progress=None)
    assert len(rows) == 2 * (1 + len(ITEMS["table1"].columns))
    assert {round(row["density"], 3) for row in rows} == {0.5, 1.0}
    assert PAPERS["001"]["table1"].claims(rows)


def test_a_failed_training_is_told_after_the_others_and_tried_again(tmp_path, monkeypatch):
    def fail(unit, dataset, folder, watcher, deliver):
        for job in unit:
            deliver(job, {"key": job.key, "error": "ValueError: no"})

    monkeypatch.setattr(tables, "run_unit", fail)
    with pytest.raises(RuntimeError, match="40 of 40 trainings failed, the first with ValueError: no"):
        PAPERS["001"]["table4"].rows(out=tmp_path, quick=True, data_dir=None, progress=None)
    assert all("accuracy" in row for row in run("table4", tmp_path, monkeypatch))


def test_without_its_files_a_table_says_what_it_needs(tmp_path):
    with pytest.raises(ValueError, match="cifar10 is read from files; pass data_dir"):
        PAPERS["001"]["table1"].rows(out=tmp_path / "new", quick=False, data_dir=None, progress=None)
    assert not (tmp_path / "new").exists()
