"""Masks: report, file, torch.nn.utils.prune."""

import os
import stat

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import prune as torch_prune

from sparseprune.masks import Masks


def _masks() -> Masks:
    first = torch.tensor([[True, False, False], [True, True, False]])
    second = torch.tensor([[0.0, 2.5], [0.0, 0.0], [0.125, 0.0]])
    return Masks({"0.weight": first, "1.weight": second}, seed=2**40)


def _model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 3))


def test_masks_are_a_mapping_with_counts():
    masks = _masks()
    assert list(masks) == ["0.weight", "1.weight"] and len(masks) == 2
    assert (masks.kept, masks.total, masks.density) == (5, 12, 5 / 12)
    assert not masks.collapsed and "5 of 12 kept" in repr(masks)


def test_report_counts_dead_inputs_and_outputs():
    rows = _masks().report().rows
    assert [(r.kept, r.total, r.dead_inputs, r.dead_outputs) for r in rows] == [(3, 6, 1, 0), (2, 6, 0, 1)]


def test_report_is_an_aligned_table_that_ends_in_density_and_verdict():
    lines = str(_masks().report()).splitlines()
    assert lines[0].split() == ["layer", "shape", "kept", "total", "density", "dead", "in", "dead", "out"]
    assert lines[1].split() == ["0.weight", "2x3", "3", "6", "0.5", "1", "0"]
    assert lines[0].index("total") == lines[1].index("6") - len("total") + 1
    assert lines[-2:] == ["achieved density 0.416667 (5 of 12 kept)", "no layer collapsed"]


def test_a_layer_that_keeps_nothing_is_flagged():
    masks = Masks({"a": torch.ones(2, 2, dtype=torch.bool), "b": torch.zeros(2, 2, dtype=torch.bool)})
    assert masks.collapsed and masks.report().collapsed == ("b",)
    assert str(masks.report()).splitlines()[-1] == "COLLAPSE: nothing kept in b"


def test_dead_inputs_of_a_grouped_convolution_are_those_of_their_own_group():
    mask = torch.zeros(4, 2, 3, 3, dtype=torch.bool)  # outputs 0, 1 read inputs 0, 1; outputs 2, 3 read inputs 2, 3
    mask[0, 0, 1, 1] = mask[1, 1, 0, 0] = mask[3, 1, 2, 2] = True
    assert Masks({"w": mask}, groups={"w": 2}).report().rows[0].dead_inputs == 1
    assert Masks({"w": mask}).report().rows[0].dead_inputs == 0
    assert Masks({"w": mask}, groups={"w": 2}).report().rows[0].dead_outputs == 1


def test_a_layer_without_weights_has_a_row():
    (row,) = Masks({"w": torch.ones(0, 3, 1, 1, dtype=torch.bool)}).report().rows
    assert (row.kept, row.total, row.dead_inputs, row.dead_outputs) == (0, 0, 3, 0)


@pytest.mark.parametrize(
    "masks, message",
    [
        ({}, "at least one mask"),
        ({"w": torch.ones(2, dtype=torch.int64)}, "'w' must be bool or floating, got torch.int64"),
        ({"w": [True, False]}, "'w' must be a tensor, got list"),
        ({"w": torch.tensor([1.0, float("nan")])}, "'w' must be finite"),
    ],
)
def test_bad_masks_are_an_error(masks, message):
    with pytest.raises(ValueError, match=f"Masks: mask.*{message}"):
        Masks(masks)


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(3, 5), (1, 1), (7, 3, 3, 3), (0, 4)])
def test_save_and_load_round_trip(tmp_path, dtype, shape):
    mask = (torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2).floor().to(dtype)
    masks = Masks({"w": mask, "other": torch.tensor([[True, False]])}, seed=-3, groups={"w": 2})
    masks.save(tmp_path / "ticket.safetensors")
    again = Masks.load(tmp_path / "ticket.safetensors")
    assert list(again) == ["w", "other"] and again.seed == -3 and again.groups == {"w": 2}
    assert again["w"].dtype == dtype and torch.equal(again["w"], mask)
    assert torch.equal(again["other"], masks["other"])


def test_non_contiguous_masks_are_saved_in_their_logical_order(tmp_path):
    mask = (torch.arange(30).view(5, 6) % 7 == 0).t()
    Masks({"w": mask, "f": mask.float()}).save(tmp_path / "m")
    again = Masks.load(tmp_path / "m")
    assert torch.equal(again["w"], mask) and torch.equal(again["f"], mask.float())


def test_masks_that_share_memory_are_saved(tmp_path):
    mask = torch.tensor([[0.0, 2.0]])
    masks = Masks({"a": mask, "b": mask})
    masks.save(tmp_path / "m")
    assert Masks.load(tmp_path / "m") == masks


def test_equal_masks_have_the_same_names_dtypes_and_values():
    assert _masks() == _masks()
    first = _masks()["0.weight"]
    others = ({"0.weight": first}, {"0.weight": first, "1.weight": first}, {**_masks(), "0.weight": first.float()})
    assert all(Masks(other) != _masks() for other in others) and _masks() != 1


def test_a_bool_mask_takes_one_bit_a_weight(tmp_path):
    Masks({"w": torch.ones(1000, 800, dtype=torch.bool)}).save(tmp_path / "m")
    assert (tmp_path / "m").stat().st_size < 100_000 + 1000


def test_an_interrupted_save_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "m"
    _masks().save(path)
    before = path.read_bytes()
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        Masks({"w": torch.ones(2, 2)}).save(path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["m"]


def test_the_file_has_ordinary_permissions(tmp_path):
    (tmp_path / "plain").write_text("")
    _masks().save(tmp_path / "m")
    assert stat.S_IMODE((tmp_path / "m").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_every_truncated_file_is_one_clear_error(tmp_path):
    path = tmp_path / "cut.safetensors"
    _masks().save(path)
    whole = path.read_bytes()
    for length in {0, 1, 7, 8, 20, len(whole) // 2, len(whole) - 1}:
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"Masks.load: .*cut\.safetensors must be a whole safetensors file"):
            Masks.load(path)


def test_every_flipped_content_bit_is_found(tmp_path):
    path = tmp_path / "flipped"
    _masks().save(path)
    whole = bytearray(path.read_bytes())
    for offset in range(len(whole) - 25, len(whole)):  # the data: 1 byte of bits, 24 of floats
        changed = bytearray(whole)
        changed[offset] ^= 64
        path.write_bytes(changed)
        with pytest.raises(ValueError, match=r"Masks.load: .*flipped must match its own sha256"):
            Masks.load(path)


def test_an_altered_header_is_found(tmp_path):
    path = tmp_path / "m"
    Masks({"w": torch.ones(2, 3, dtype=torch.bool)}).save(path)
    path.write_bytes(path.read_bytes().replace(b"[2, 3]", b"[3, 2]"))
    with pytest.raises(ValueError, match="must match its own sha256"):
        Masks.load(path)


def test_foreign_files_are_one_clear_error(tmp_path):
    save_file({"w": torch.ones(2)}, tmp_path / "foreign.safetensors")
    with pytest.raises(ValueError, match=r"foreign\.safetensors must be a mask file"):
        Masks.load(tmp_path / "foreign.safetensors")
    torch.save({"w": torch.ones(2)}, tmp_path / "foreign.pt")
    with pytest.raises(ValueError, match=r"foreign\.pt must be a whole safetensors file"):
        Masks.load(tmp_path / "foreign.pt")


def test_a_missing_file_is_file_not_found(tmp_path):
    with pytest.raises(FileNotFoundError):
        Masks.load(tmp_path / "nothing")


def test_export_to_torch_prune_computes_with_the_mask_and_imports_back():
    model, masks = _model(), _masks()
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    assert masks.apply_torch_prune(model) is model
    assert torch_prune.is_pruned(model)
    assert torch.equal(model[1].weight, weights["1.weight"] * masks["1.weight"])
    again = Masks.from_torch_prune(model)
    assert list(again) == list(masks)
    assert all(torch.equal(again[n], masks[n]) and again[n].dtype == masks[n].dtype for n in masks)


def test_import_of_masks_made_by_torch_prune():
    model = _model()
    torch_prune.l1_unstructured(model[0], "weight", amount=4)
    masks = Masks.from_torch_prune(model)
    assert list(masks) == ["0.weight"] and masks.kept == 2 and masks["0.weight"].dtype is torch.bool


def test_import_from_a_lone_grouped_layer_keeps_its_groups():
    layer = nn.Conv2d(4, 4, 3, groups=2)
    torch_prune.l1_unstructured(layer, "weight", amount=0.5)
    masks = Masks.from_torch_prune(layer)
    assert list(masks) == ["weight"] and masks.groups == {"weight": 2}


def test_import_from_a_dense_model_is_an_error():
    with pytest.raises(ValueError, match="from_torch_prune: model must have weight_mask buffers"):
        Masks.from_torch_prune(_model())


@pytest.mark.parametrize(
    "masks, message",
    [
        (
            {"0.weight": torch.ones(2, 3), "7.weight": torch.ones(2, 3)},
            "must name parameters of the model, got '7.weight'",
        ),
        (
            {"0.weight": torch.ones(2, 3), "1.weight": torch.ones(2, 3)},
            r"'1.weight' must have shape \[3, 2\], got \[2, 3\]",
        ),
    ],
)
def test_export_that_does_not_fit_changes_nothing(masks, message):
    model = _model()
    with pytest.raises(ValueError, match=f"apply_torch_prune: .*{message}"):
        Masks(masks).apply_torch_prune(model)
    assert not torch_prune.is_pruned(model)
