"""The pictures are whole PNGs, drawn of what rows there are."""

import pytest
from PIL import Image

from sparseprune.plots import accuracy_against_density, layer_densities, weight_histograms
from sparseprune.summary import summarise

from .rows import rows_of

ABLATION = ("snip/threshold", "snip/multinomial(at=each)", "snip/multinomial(scale=keep)", "random/threshold")


def colours(path) -> int:
    with Image.open(path) as picture:
        picture.load()
        assert picture.format == "PNG" and picture.width > 400
        return len(picture.convert("RGB").getcolors(1 << 20) or [])


def test_accuracies(tmp_path):
    rows = rows_of()
    rows[1] = {"key": rows[1]["key"], "error": "x"}
    accuracy_against_density(summarise(rows), tmp_path / "deep" / "accuracy.png", "title")
    assert colours(tmp_path / "deep" / "accuracy.png") > 20
    accuracy_against_density(summarise(rows[:1]), tmp_path / "dense.png", "only the dense net")
    assert (tmp_path / "dense.png").stat().st_size > 1000


@pytest.mark.parametrize(("draw", "field"), [(layer_densities, "layers"), (weight_histograms, "weights")])
@pytest.mark.parametrize("layout", ["masked", "csr"])
def test_what_is_kept(tmp_path, draw, field, layout):
    rows = rows_of(ABLATION, layout=layout)
    path = tmp_path / "kept.png"
    assert draw(rows, path, "title") and colours(path) > 20
    older = [{name: value for name, value in row.items() if name != field} for row in rows]
    assert draw([*older, *rows[-4:]], path, "title"), "what an older version wrote is left out"
    assert not draw(older, tmp_path / "none.png", "title") and not (tmp_path / "none.png").exists()
    assert not draw([{"key": row["key"], "error": "x"} for row in rows], tmp_path / "none.png", "title")


def test_every_method_of_an_ablation_looks_its_own_way():
    from sparseprune.plots import _styles

    looks = [(style["color"], style["linestyle"]) for style in _styles(list(ABLATION)).values()]
    assert len(set(looks)) == len(ABLATION)
