"""Golden bits: sha256 of every method's output on scores defined by integer formulas, on every device.

q, A and n_b are kept apart from the counts, so that a change shows where it began. To accept a deliberate change of the
law, and only then, write the file anew from the repository's root:

    python tests/ops/test_golden.py
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sparseprune import sampling
from sparseprune.ops import reference
from sparseprune.ops.sketch import align

GOLDEN = Path(__file__).parent.parent / "golden" / "sampler.json"
SIZES = (3, 20_000, 4096, 5, 7_000)
NUMEL = sum(SIZES)


def scores_on(device: str, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """24-bit integers from a multiplicative hash, times powers of two from 2^-20 to 2^10; every 11th is 0."""
    i = torch.arange(NUMEL)
    mantissa = (i * 2654435761 % (1 << 32)) >> 8
    scores = mantissa.double() * 2.0 ** (i * 7919 % 31 - 44).double()
    scores[i % 11 == 0] = 0.0
    return list(scores.to(dtype).to(device).split(SIZES))


def weights_on(device: str) -> list[Tensor]:
    i = torch.arange(NUMEL)
    return list(((i * 40503 % 65536 - 32768).float() / 4096).to(device).split(SIZES))


def digest(result: Any) -> str:
    tensors = result if isinstance(result, list | tuple) else [result]
    hashed = hashlib.sha256()
    for t in tensors:
        hashed.update(f"{t.dtype} {list(t.shape)}".encode())
        hashed.update(t.cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return hashed.hexdigest()


def tables(device: str) -> dict[str, str]:
    """The integers of the law before any count: exponents, masses, q, A, n_b."""
    scores = scores_on(device)
    empty = torch.empty(0, device=device)
    exponents, masses, _, _ = torch.ops.sparseprune.score_tiles(scores, [], reference.GIVEN)
    q = [reference.quantize(v, exponents[b : b + len(v)]) for b, v in reference.tile_blocks(scores, [], 0)]
    aligned = align(exponents, masses)
    per_tile = torch.ops.sparseprune.split_draws(aligned, empty.bool(), 100_000, 7, 1)
    named = {"exponents": exponents, "masses": masses, "q": torch.cat(q), "A": aligned, "n_b": per_tile}
    return {f"table {name}": digest(value) for name, value in named.items()}


def results(device: str) -> dict[str, str | int]:
    scores, weights = scores_on(device), weights_on(device)
    half, double = scores_on(device, torch.bfloat16), scores_on(device, torch.float64)
    factor = [torch.tensor([1.5, 0.75, 3.0], device=device)[: 1 if n % 3 else 3] for n in SIZES]
    signed: dict[str, Any] = {"transform": "abs", "factor": [f[:1] for f in factor]}
    found: dict[str, str | int] = dict(tables(device))
    for output in ("m", "counts", "weights", "bool", "indices"):
        result = sampling.multinomial(scores, 100_000, seed=7, stream=1, output=output, weights=weights)
        found[f"multinomial {output}"] = digest(result)
    found["multinomial few draws"] = digest(sampling.multinomial(scores, 100, seed=-1, output="counts"))
    found["multinomial bfloat16 scores"] = digest(sampling.multinomial(half, 5000, seed=2**63, output="counts"))
    found["multinomial float64"] = digest(sampling.multinomial(double, 5000, seed=1))
    found["multinomial square"] = digest(sampling.multinomial(weights, 5000, seed=1, transform="square"))
    found["multinomial factor"] = digest(sampling.multinomial(weights, 5000, seed=1, **signed))
    found["multinomial bfloat16 m"] = digest(sampling.multinomial(scores, 5000, seed=1, dtype=torch.bfloat16))
    found["multinomial float16 weights"] = digest(
        sampling.multinomial(scores, 5000, seed=1, output="weights", weights=weights, dtype=torch.float16)
    )
    found["top_k"] = digest(sampling.top_k(scores, 5000))
    found["top_k signed ties"] = digest(sampling.top_k([w.round() for w in weights], 5000))
    found["top_k weights"] = digest(sampling.top_k(weights, 5000, output="weights", **signed))
    found["without_replacement"] = digest(sampling.without_replacement(scores, 5000, seed=7, stream=1))
    found["without_replacement float64"] = digest(sampling.without_replacement(double, 5000, seed=2**64 - 1))
    found["priority m"] = digest(sampling.priority(scores, 5000, seed=7, stream=1))
    found["priority float64"] = digest(sampling.priority(double, 5000, seed=7))
    found["priority weights"] = digest(sampling.priority(scores, 5000, seed=7, output="weights", weights=weights))
    found["draws_for_nnz"] = sampling.draws_for_nnz(scores, 9000)
    found["draws_for_nnz float64"] = sampling.draws_for_nnz(double, 15_000)
    return found | every_output(scores, weights) | types_and_sizes(scores, half, double, weights, signed)


def every_output(scores: list[Tensor], weights: list[Tensor]) -> dict[str, str | int]:
    """Methods and outputs that `results` does not name itself."""
    found: dict[str, str | int] = {}
    for method in ("poisson", "systematic", "bernoulli"):
        for output in ("m", "counts", "weights", "bool", "indices"):
            options = {"seed": 7, "stream": 1, "output": output, "weights": weights}
            found[f"{method} {output}"] = digest(getattr(sampling, method)(scores, 9000, **options))
    for output in ("counts", "bool", "indices"):
        found[f"priority {output}"] = digest(sampling.priority(scores, 5000, seed=7, stream=1, output=output))
    for output in ("weights", "indices"):
        options = {"seed": 7, "stream": 1, "output": output, "weights": weights}
        found[f"without_replacement {output}"] = digest(sampling.without_replacement(scores, 5000, **options))
    found["top_k indices"] = digest(sampling.top_k(scores, 5000, output="indices"))
    return found


def types_and_sizes(
    scores: list[Tensor], half: list[Tensor], double: list[Tensor], weights: list[Tensor], signed: dict[str, Any]
) -> dict[str, str | int]:
    """The three methods with tables of their own, on other types, transforms and numbers of draws."""
    found: dict[str, str | int] = {}
    for method in ("poisson", "systematic", "bernoulli"):
        draw = getattr(sampling, method)
        found[f"{method} few"] = digest(draw(scores, 10, seed=-1, output="counts"))
        found[f"{method} bfloat16 scores"] = digest(draw(half, 5000, seed=2**63, output="counts"))
        found[f"{method} float64"] = digest(draw(double, 5000, seed=1))
        found[f"{method} square"] = digest(draw(weights, 5000, seed=1, transform="square"))
        found[f"{method} factor"] = digest(draw(weights, 5000, seed=1, **signed))
        found[f"{method} bfloat16 m"] = digest(draw(scores, 5000, seed=1, dtype=torch.bfloat16))
    found["poisson many"] = digest(sampling.poisson(scores, 10_000_000, seed=3, output="counts"))
    found["systematic many"] = digest(sampling.systematic(scores, 2**31 - 1, seed=3, output="counts"))
    found["bernoulli all"] = digest(sampling.bernoulli(scores, NUMEL, seed=3))
    return found


@pytest.fixture(
    scope="module",
    params=["cpu", *([pytest.param("cuda", marks=pytest.mark.gpu)] if torch.cuda.is_available() else [])],
)
def found(request: pytest.FixtureRequest) -> dict[str, str | int]:
    return results(request.param)


@pytest.mark.parametrize("name", json.loads(GOLDEN.read_text()) if GOLDEN.exists() else [])
def test_the_bits_are_the_golden_ones(name, found) -> None:
    assert found[name] == json.loads(GOLDEN.read_text())[name]


def test_every_result_has_a_golden_hash(found) -> None:
    assert list(found) == list(json.loads(GOLDEN.read_text()))


if __name__ == "__main__":
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(json.dumps(results("cpu"), indent=1) + "\n")
