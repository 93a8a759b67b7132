"""The five lines of the README, from the model to the trained ticket."""

import torch
import torch.nn.functional as F

import sparseprune as sp
from sparseprune.data import load


def test_prune_sparsify_train_save_load_densify(tmp_path):
    model, digits = sp.models.build("small-conv", seed=0), load("digits")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    masks = sp.prune(model, density=0.2, score="synflow", select="multinomial", input_shape=(1, 8, 8), seed=0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert f"achieved density {masks.density:.6g}" in str(masks.report()) and abs(masks.density - 0.2) < 0.02
    sp.sparsify(model, masks)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    losses = []
    for x, y in digits.batches(64):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-3:]) < 0.7 * sum(losses[:3])
    masks.save(tmp_path / "ticket.safetensors")
    masks = sp.Masks.load(tmp_path / "ticket.safetensors")
    with torch.no_grad():
        output = model.eval()(digits.test_inputs)
        sp.densify(model)
        torch.testing.assert_close(model(digits.test_inputs), output)  # csr layers sum in another order
    assert all(not isinstance(m, (sp.nn.SparseLinear, sp.nn.SparseConv2d)) for m in model.modules())
    assert masks.seed == 0 and all(not model.get_parameter(name)[mask == 0].any() for name, mask in masks.items())
