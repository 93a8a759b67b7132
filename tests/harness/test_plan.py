"""What a run does: its jobs, its methods, and one clear error for a bad plan."""

from dataclasses import replace

import pytest

from sparseprune import harness, methods, scores, select
from sparseprune.harness import DENSE, Plan
from sparseprune.results import identity


def test_by_default_it_is_the_issues_job(digits):
    plan = Plan()
    jobs = plan.jobs(digits)
    assert (plan.dataset, plan.model, plan.device) == ("digits", "small-conv", "cpu")
    expected = {f"{s}/{t}" for s in ("magnitude", "snip", "grasp", "synflow") for t in methods.SELECTS}
    assert {job.method for job in jobs} == {DENSE, *expected}
    assert {job.density for job in jobs if job.method != DENSE} == {0.5, 0.2, 0.1, 0.05}
    assert len(jobs) == 3 * (1 + 12 * 4) and len({identity(job.key) for job in jobs}) == 147
    assert [job.seed for job in jobs] == [0] * 49 + [1] * 49 + [2] * 49


def test_the_papers_recipe_is_the_default_for_cifar():
    assert Plan(dataset="cifar10").recipe == harness.Recipe(epochs=160, batch_size=128, lr=0.1, augment=True)
    assert Plan(dataset="cifar10", epochs=2, batch_size=8, lr=0.5).recipe == harness.Recipe(2, 8, 0.5, True)
    assert Plan(dataset="mnist").recipe == harness.Recipe(epochs=10, batch_size=128, lr=0.1, augment=False)


def test_methods_are_scores_or_pairs_of_the_registries():
    assert methods.expand("snip") == ["snip/threshold", "snip/multinomial", "snip/without_replacement"]
    pairs = [f"{score}/{selector}" for score in scores.names() for selector in select.names()]
    assert [each for pair in pairs for each in methods.expand(pair)] == pairs
    assert Plan(methods=("snip", "snip/threshold")).pairs == tuple(methods.expand("snip"))


def test_keys_are_those_of_older_files_and_methods_are_canonical(digits):
    plan = Plan(methods=("snip( )/ threshold", "snip/multinomial( scale=keep , at=end )"), seeds=1, densities=(0.5,))
    dense, old, kept = plan.jobs(digits)
    assert (dense.method, old.method, kept.method) == (DENSE, "snip/threshold", "snip/multinomial(scale=keep)")
    assert old.key == {
        "dataset": "digits", "data": harness.fingerprint(digits), "model": "small-conv", "method": "snip/threshold",
        "density": 0.5, "seed": 0, "epochs": 6, "batch_size": 64, "lr": 0.1, "augment": False, "device": "cpu",
        "version": old.version,
    }  # fmt: skip


def test_a_scoring_is_what_differs_in_selector_and_layout_alone(digits):
    plan = Plan(methods=("imp",), layouts=("masked", "csr"), seeds=2, densities=(0.5, 0.1))
    jobs = [job for job in plan.jobs(digits) if job.method != DENSE]
    assert len(jobs) == 24 and len({job.name for job in jobs}) == 24 and len({job.scoring for job in jobs}) == 4


def test_other_files_under_the_same_name_are_another_configuration(digits):
    pixels = digits.test_pixels.clone()
    pixels[0, 0, 0, 0] += 1
    other = type(digits).build(
        "digits", (digits.train_pixels, digits.train_targets), (pixels, digits.test_targets), classes=10
    )
    assert harness.fingerprint(other) != harness.fingerprint(digits) == harness.fingerprint(replace(digits))


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"densities": (0.5, 1.5)}, r"density must be in \(0, 1\], got 1.5"),
        ({"densities": (0.0,)}, "density must be in"),
        ({"densities": (float("nan"),)}, "density must be in"),
        ({"densities": ()}, "density must name at least one density"),
        ({"dataset": "svhn"}, "dataset must be one of digits, .*got 'svhn'"),
        ({"model": "resnet21"}, r"model must be one of .*resnet20.*got 'resnet21'"),
        ({"methods": ("synflo",)}, r"score must be one of .*synflow.*got 'synflo'"),
        ({"methods": ("synflow/top",)}, r"selector must be one of .*threshold.*got 'top'"),
        ({"seeds": 0}, "seeds must be at least 1, got 0"),
        ({"epochs": -1}, "epochs must be at least 0, got -1"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"lr": float("inf")}, "lr must be a finite number > 0"),
        ({"layouts": ("coo",)}, "layout must be one of masked, csr, auto, got 'coo'"),
        ({"layouts": ()}, "layout must name at least one layout, got none"),
        ({"methods": ()}, "method must name at least one method, got none"),
        ({"device": "cuda:99"}, r"device must be there, got 'cuda:99'; CUDA devices torch sees: \d+"),
        ({"device": "gpu9"}, "device must be cpu, cuda or cuda:N, got 'gpu9'"),
        ({"device": "meta"}, "device must be cpu, cuda or cuda:N, got 'meta'"),
    ],
)
def test_a_bad_plan_is_one_clear_error(arguments, reason):
    with pytest.raises(ValueError, match=f"^(run|method): {reason}"):
        Plan(**arguments)
