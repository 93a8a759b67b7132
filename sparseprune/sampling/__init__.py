"""Sketches and exact selections over tensors of any size, the same bits on every device and number of threads.

`scores` is a tensor or a list of tensors, seen as one logical vector; results have the same form. `transform` and
`factor` are fused into the pass over the scores: p is proportional to `score * factor` ("given"), `|score * factor|`
("abs") or `score^2 * factor` ("square"). The law, and when to use which: docs/sampler.md.
"""

from .bernoulli import bernoulli
from .draws_for_nnz import draws_for_nnz
from .multinomial import multinomial
from .poisson import poisson
from .priority import priority
from .systematic import systematic
from .top_k import top_k
from .without_replacement import without_replacement

__all__ = [
    "bernoulli",
    "draws_for_nnz",
    "multinomial",
    "poisson",
    "priority",
    "systematic",
    "top_k",
    "without_replacement",
]
