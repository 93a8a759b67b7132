"""Paper 004's theorems and figure 4: rows that resume, a picture, and verdicts that follow the rows."""

import copy

import pytest

from sparseprune.papers import PAPERS, teacher_student_theorems

from ..one_thread import one_thread

__all__ = ["one_thread"]

TINY = teacher_student_theorems.Sizes(20_000, 5000, 200, 60, (100, 400), 4)
# Printed forms that are false, and claims for every Z that need Z >= 2 or 4.
FALSE = ("printed", "proof", "expected network", "every Z")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("theorems")


@pytest.fixture
def rows(folder, monkeypatch):
    monkeypatch.setattr(teacher_student_theorems, "QUICK", TINY)
    return PAPERS["004"]["theorems"].rows(out=folder, quick=True, data_dir=None, progress=None)


def verdicts(rows):
    return {claim.text: claim.holds for claim in PAPERS["004"]["theorems"].claims(rows)}


def test_theorems_hold_but_for_what_is_printed_falsely(rows):
    for text, holds in verdicts(rows).items():
        five = text.startswith("Theorem 5")
        assert holds is (five or not any(word in text for word in FALSE)), text


def test_rows_are_not_computed_again_and_the_picture_is_drawn(rows, folder, monkeypatch):
    monkeypatch.setattr(teacher_student_theorems, "MEASURES", {})
    experiment = PAPERS["004"]["theorems"]
    assert experiment.rows(out=folder, quick=True, data_dir=None, progress=None) == rows
    experiment.picture(rows, folder / "theorems.png")
    assert (folder / "theorems.png").stat().st_size > 50_000
    assert {"found", "closed form"} <= set(experiment.shown(rows)[0])


def assert_turned(text, rows, changed):
    [before], [after] = ([v for t, v in verdicts(some).items() if t.startswith(text)] for some in (rows, changed))
    assert before is True and after is False


@pytest.mark.parametrize(
    ("curve", "field", "text"),
    [
        ("integrals", "found", "I2, J2"),
        ("equation 13", "found", "equation 13"),
        ("Lemma 1", "found", "Lemma 1"),
        ("k-DPP", "found", "Theorem 1: its error"),
        ("Lemma 4", "found", "Lemma 4: "),
        ("Theorem 3", "found", "Theorem 3 (10)"),
        ("importance edges", "found", "importance edges"),
        ("Lemma 3", "rates", "Lemma 3: dv_i/dt = eta rate (v* - sum v_j), rate = (2 / pi)"),
        (
            "Conjecture 1",
            "gaps",
            "Conjecture 1: random edges err less than random nodes, the fewest parameters, Z >= 2",
        ),
        ("Conjecture 1", "of importance", "Conjecture 1: edges by importance"),
        ("Theorem 2", "8", "Theorem 2 (8): DIVNET errs less than random nodes, reweighted: strictly"),
    ],
)
def test_a_verdict_turns_with_its_rows(rows, curve, field, text):
    changed = copy.deepcopy(rows)
    for row in changed:
        if row["key"]["curve"] == curve:
            row[field] = [0.5 * value - 0.1 for value in row[field]]
    assert_turned(text, rows, changed)


@pytest.mark.parametrize(
    ("curve", "field", "text"),
    [
        ("every set", "off", "Lemma 2: the error of any set"),
        ("signs", "off", "signs: "),
        ("equation 18", "corrected", "(18): l - 1 + (1 - l/Z)^2 = l (1 + l/Z^2"),
    ],
)
def test_an_exact_verdict_turns_with_its_rows(rows, curve, field, text):
    changed = copy.deepcopy(rows)
    for row in changed:
        if row["key"]["curve"] == curve:
            row[field] = dict.fromkeys(row[field], 1e-3) if isinstance(row[field], dict) else 1e-3
    assert_turned(text, rows, changed)


def test_remark_4_turns_where_masks_do_not_concentrate(rows):
    changed = copy.deepcopy(rows)
    for row in changed:
        if row["key"]["curve"] == "Theorem 3":
            row["errors"] = [0.01]
    assert verdicts(changed)["Remark 4: over masks it deviates by 1/sqrt N"] is False


@pytest.mark.parametrize(("field", "text"), [("least of 4", "Theorem 4"), ("most of 5", "Theorem 5")])
def test_figure_4_turns_with_its_rows(folder, field, text):
    experiment = PAPERS["004"]["fig4"]
    rows = experiment.rows(out=folder, quick=True, data_dir=None, progress=None)
    assert [row["key"]["Z"] for row in rows] == list(range(1, 31))
    experiment.picture(rows, folder / "fig4.png")
    changed = [{**row, field: -row[field]} for row in rows]
    before, after = ([c.holds for c in experiment.claims(some) if c.text.startswith(text)] for some in (rows, changed))
    assert before[0] is True and after[0] is False
    assert rows[3]["4"][-1] == pytest.approx(2.008e-4, rel=1e-3)
