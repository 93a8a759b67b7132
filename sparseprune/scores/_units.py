"""Which units feed which: a module's layers as a graph of channels and features, found by one forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

Origin = dict[int, float]  # unit -> probability that a walk back steps to it


@dataclass(frozen=True)
class Layer:
    """One call of a layer, in the order of the forward pass.

    Args:
        name: of its weight where that can be pruned.
        weight: [groups, out/groups, in/groups, kernel positions].
        sources: for each input unit (channel or feature), the units that it is computed from; empty: the net's input.
        first: number of its first output unit.
    """

    name: str | None
    weight: Tensor
    sources: list[Origin]
    first: int

    @property
    def outputs(self) -> int:
        """Number of output units."""
        return self.weight.shape[0] * self.weight.shape[1]


@torch.no_grad()
def trace(who: str, model: nn.Module, weights: Mapping[str, Tensor], x: Tensor) -> tuple[list[Layer], list[Origin]]:
    """Run the model once and return its layers and what each unit of its output is computed from.

    Numbers that say where an activation comes from run along with it: a layer's output has new ones, what moves entries
    moves them, what is elementwise keeps them, pools and means unite them. A sum comes from one of its terms with equal
    chances; terms that another one is computed from are left out, so an identity shortcut is no way around its branch.
    Products and attention come from any factor. Norms and softmax count as elementwise.

    Args:
        who: for error messages.
        model: any module, as it is (its mode too).
        weights: name -> what stands for that parameter.
        x: one sample, batch dimension included.

    Raises:
        ValueError: an operation without a rule here, on activations or on weights.
    """
    tracing = _Tracing(who, weights)
    buffers = {name: b.clone() for name, b in model.named_buffers()}  # a forward pass may write to them
    with tracing:
        output = torch.func.functional_call(model, {**buffers, **weights}, (x,))
    if lost := tracing.used - {layer.name for layer in tracing.layers}:
        raise ValueError(
            f"{who}: weights must be used as linear or convolutional layers, got other uses of {sorted(lost)}"
        )
    ids = [tracing.ids(t) for t in _tensors(output)]
    found = sorted(set(chain.from_iterable(i.unique().tolist() for i in ids if i is not None)) - {0.0})
    return tracing.layers, [tracing.origins[int(i)] for i in found]


class _Tracing(TorchFunctionMode):
    """Give every activation a tensor of ids: which entry of `origins` each of its numbers comes from, 0 for none."""

    def __init__(self, who: str, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.who = who
        self.names: dict[int, str] = {id(w): name for name, w in weights.items()}
        self.used: set[str] = set()
        self.layers: list[Layer] = []
        self.origins: list[Origin] = [{}]  # by id; a unit's number is the id that stands for it alone
        self._above: list[int] = [0]  # by unit: a bit for each unit that its layer's inputs are computed from
        self._mixed: dict[Any, int] = {}
        self._alive: list[Any] = []  # objects known by id

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one function and its rule."""
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        name = func.__name__
        if isinstance(out, Tensor):
            self._follow_weights(func, out, _tensors((args, kwargs)))
        if name in _LAYERS and isinstance(out, Tensor):
            self._mark(out, _LAYERS[name](self, out, *args, **kwargs))
        elif name == "multi_head_attention_forward":
            self._mark(out[0], _attention_block(self, out[0], *args, **kwargs))
        elif name == "__setitem__":
            target, index, value = args
            ids = self.known(target).clone()
            ids[index] = self.known(value) if isinstance(value, Tensor) else 0
            self._mark(target, ids)
        elif any(self.ids(t) is not None for t in _tensors((args, kwargs))):
            floating = [t for t in _tensors(out) if t.is_floating_point()]
            if floating:
                self._apply(_RULES.get(name, _elementwise), func, out, floating, args, kwargs)
        return out

    def _apply(self, rule: Any, func: Any, out: Any, floating: list[Tensor], args: Any, kwargs: Any) -> None:
        try:
            for t, ids in zip(floating, _tensors(rule(self, func, out, args, kwargs)), strict=True):
                self._mark(t, ids.expand(t.shape))
        except (RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
            shapes = [list(t.shape) for t in _tensors((args, kwargs))]
            raise ValueError(
                f"{self.who}: model must be made of layers, sums, products, joins, pools and elementwise functions, "
                f"got {func.__name__} of {shapes}, whose units cannot be followed"
            ) from error

    def _follow_weights(self, func: Any, out: Tensor, given: Iterable[Tensor]) -> None:
        """Note which weights are used; a weight times its mask is that weight."""
        for weight in (t for t in given if id(t) in self.names):
            self.used.add(self.names[id(weight)])
            if out.shape == weight.shape and func.__name__ in _SCALES:
                self.names[id(out)] = self.names[id(weight)]
                self._alive.append(out)

    def ids(self, t: Any) -> Tensor | None:
        """The ids of an activation; None for any other tensor."""
        return getattr(t, "_units", None)

    def known(self, t: Tensor) -> Tensor:
        """Ids of any tensor: zeros where it comes from no layer."""
        ids = self.ids(t)
        return torch.zeros(t.shape, dtype=torch.float64) if ids is None else ids

    def _mark(self, t: Tensor, ids: Tensor) -> None:
        setattr(t, "_units", ids)  # noqa: B010 - a tensor has no such attribute to a type checker

    def call(self, name: str | None, weight: Tensor, inputs: Tensor) -> Tensor:
        """Add a layer with weight [groups, out/groups, in/groups, K] and inputs' ids [in]; return its outputs' ids."""
        sources = [self.origins[int(i)] for i in inputs.tolist()]
        above = 0
        for unit in set(chain.from_iterable(sources)):
            above |= self._above[unit] | 1 << unit
        layer = Layer(name, weight.detach(), sources, first=len(self.origins))
        self.layers.append(layer)
        units = range(layer.first, layer.first + layer.outputs)
        self.origins += [{unit: 1.0} for unit in units]
        self._above += [above] * layer.outputs
        return torch.arange(units.start, units.stop, dtype=torch.float64)

    def unite(self, rows: Tensor, *, added: bool = False) -> Tensor:
        """Return for each row of ids [..., n] the id of "any of them"; of terms added, of the last ones."""
        flat = rows.reshape(-1, rows.shape[-1])
        if flat.shape[1] == 1 or bool((flat == flat[:, :1]).all()):
            return rows[..., 0]
        runs, run = flat.unique_consecutive(dim=0, return_inverse=True)  # a channel is one run, and sorting is slow
        distinct, which = runs.unique(dim=0, return_inverse=True)
        united = [self._mix(tuple(sorted({int(i) for i in row} - {0})), added) for row in distinct.tolist()]
        return torch.tensor(united, dtype=torch.float64)[which][run].view(rows.shape[:-1])

    def _mix(self, ids: tuple[int, ...], added: bool) -> int:
        if len(ids) < 2:
            return ids[0] if ids else 0
        if (ids, added) not in self._mixed:
            terms = [self.origins[i] for i in ids]
            if added:
                terms = [self._last(t, chain.from_iterable(o for o in terms if o is not t)) for t in terms]
                terms = [t for t in terms if t]
            mixed: Origin = {}
            for term in terms:
                for unit, p in term.items():
                    mixed[unit] = mixed.get(unit, 0.0) + p / (sum(term.values()) * len(terms))
            self._mixed[ids, added] = len(self.origins)
            self.origins.append(mixed)
            self._above.append(0)
        return self._mixed[ids, added]

    def _last(self, term: Origin, others: Iterable[int]) -> Origin:
        """The units of a term that none of the others is computed from."""
        above = 0
        for unit in others:
            above |= self._above[unit]
        return {unit: p for unit, p in term.items() if not above >> unit & 1}


def _tensors(tree: Any) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, (tuple, list)):
        for branch in tree:
            yield from _tensors(branch)
    elif isinstance(tree, dict):
        yield from _tensors(list(tree.values()))


def _linear(t: _Tracing, out: Tensor, input: Tensor, weight: Tensor, bias: Any = None) -> Tensor:
    ids = t.unite(t.known(input).reshape(-1, input.shape[-1]).T)
    return t.call(t.names.get(id(weight)), weight[None, ..., None], ids).expand(out.shape)


def _conv(t: _Tracing, out: Tensor, input: Tensor, weight: Tensor, *rest: Any, **named: Any) -> Tensor:
    options = dict(zip(("bias", "stride", "padding", "dilation", "groups"), rest, strict=False)) | named
    return _channels(t, out, input, weight, weight.unflatten(0, (options.get("groups", 1), -1)).flatten(3))


def _conv_transpose(t: _Tracing, out: Tensor, input: Tensor, weight: Tensor, *rest: Any, **named: Any) -> Tensor:
    options = dict(zip(("bias", "stride", "padding", "output_padding", "groups"), rest, strict=False)) | named
    by_group = weight.unflatten(0, (options.get("groups", 1), -1)).flatten(3)  # [groups, in/groups, out/groups, K]
    return _channels(t, out, input, weight, by_group.transpose(1, 2))


def _channels(t: _Tracing, out: Tensor, input: Tensor, weight: Tensor, matrix: Tensor) -> Tensor:
    space = weight.dim() - 2
    ids = t.unite(t.known(input).movedim(-1 - space, 0).flatten(1))
    return t.call(t.names.get(id(weight)), matrix, ids).view(-1, *[1] * space).expand(out.shape)


def _attention_block(t: _Tracing, out: Tensor, query: Tensor, key: Tensor, value: Tensor, *rest: Any, **named: Any):
    """nn.MultiheadAttention: three projections, attention, one projection."""
    size, heads, packed, out_weight = rest[0], rest[1], rest[2], rest[8]
    pieces = [named[f"{part}_proj_weight"] for part in "qkv"] if packed is None else packed.chunk(3)
    q, k, v = (
        t.call(None, weight[None, ..., None], t.unite(t.known(x).reshape(-1, x.shape[-1]).T))
        for weight, x in zip(pieces, (query, key, value), strict=True)
    )
    mixed = _attend(t, *(part.view(heads, 1, size // heads) for part in (q, k, v))).reshape(1, size)
    return t.call(t.names.get(id(out_weight)), out_weight[None, ..., None], t.unite(mixed.T)).expand(out.shape)


def _attend(t: _Tracing, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return _product(t, _product(t, q, k.mT), v)


def _product(t: _Tracing, a: Tensor, b: Tensor) -> Tensor:
    """Matrix product: any entry of the row of a or of the column of b, the two with equal chances."""
    left, right = t.unite(a)[..., :, None], t.unite(b.mT)[..., None, :]
    return t.unite(torch.stack(torch.broadcast_tensors(left, right), -1))


def _elementwise(t: _Tracing, func: Any, out: Tensor, args: Any, kwargs: Any) -> Tensor:
    terms = [t.known(a).broadcast_to(out.shape) for a in _tensors((args, kwargs)) if t.ids(a) is not None]
    return t.unite(torch.stack(terms, -1), added=func.__name__ in _SUMS)


def _moves(t: _Tracing, func: Any, out: Any, args: Any, kwargs: Any) -> Any:
    """The same function of the ids."""

    def ids(tree: Any) -> Any:
        if isinstance(tree, (tuple, list)):
            return type(tree)(ids(branch) for branch in tree)
        if not isinstance(tree, Tensor):
            return tree
        return t.known(tree) if tree.is_floating_point() else tree.cpu()

    moved = {key: ids(value) for key, value in kwargs.items()}
    return func(*ids(args), **moved)


def _pads(t: _Tracing, func: Any, out: Tensor, args: Any, kwargs: Any) -> Tensor:
    mode = args[2] if len(args) > 2 else kwargs.get("mode", "constant")
    return func(t.known(args[0]), args[1] if len(args) > 1 else kwargs["pad"], mode=mode)


def _reduces(t: _Tracing, func: Any, out: Any, args: Any, kwargs: Any) -> Tensor:
    ids = t.known(args[0])
    dim = args[1] if len(args) > 1 else kwargs.get("dim")
    if isinstance(dim, Tensor):  # max and min of two tensors
        return _elementwise(t, func, out, args, kwargs)
    dims = range(ids.dim()) if dim is None else [dim] if isinstance(dim, int) else dim
    shape = next(_tensors(out)).shape
    back = sorted(d % ids.dim() for d in dims)
    kept = [d for d in range(ids.dim()) if d not in back]
    return t.unite(ids.permute(*kept, *back).flatten(len(kept))).reshape(shape)


def _pools(t: _Tracing, func: Any, out: Any, args: Any, kwargs: Any) -> Tensor:
    """A window is taken to see its whole channel."""
    shape = next(_tensors(out)).shape
    digits = [int(c) for c in func.__name__ if c.isdigit()]
    space = digits[0] if digits else len(shape) - 2
    ids = t.known(args[0])
    return t.unite(ids.flatten(ids.dim() - space)).reshape(*shape[:-space], *[1] * space).expand(shape)


def _refuses(t: _Tracing, func: Any, out: Any, args: Any, kwargs: Any) -> Tensor:
    raise ValueError


def _multiplies(t: _Tracing, func: Any, out: Tensor, args: Any, kwargs: Any) -> Tensor:
    first, second = args[:2]
    if func.__name__.startswith("__r"):
        first, second = second, first
    if t.ids(second) is None and second.dim() == 2:  # a weight of no module
        return _linear(t, out, first, second.T)
    return _product(t, t.known(first), t.known(second))


def _attends(t: _Tracing, func: Any, out: Tensor, args: Any, kwargs: Any) -> Tensor:
    given = dict(zip(("query", "key", "value"), args, strict=False)) | kwargs
    return _attend(t, *(t.known(given[name]) for name in ("query", "key", "value")))


def _rules(rule: Callable[..., Any], names: str) -> dict[str, Callable[..., Any]]:
    return dict.fromkeys(names.split(), rule)


_LAYERS = {
    "linear": _linear,
    **_rules(_conv, "conv1d conv2d conv3d"),
    **_rules(_conv_transpose, "conv_transpose1d conv_transpose2d conv_transpose3d"),
}
_SUMS = _rules(_elementwise, "add add_ __add__ __radd__ __iadd__ sub sub_ subtract __sub__ __rsub__ __isub__")
_SCALES = frozenset(("mul", "__mul__", "__rmul__", "where", "to"))
# Any other function is elementwise.
_RULES = {
    **_rules(
        _moves,
        "__get__ view view_as reshape reshape_as flatten unflatten ravel permute transpose t swapaxes movedim squeeze "
        "unsqueeze expand expand_as repeat repeat_interleave tile flip roll chunk split tensor_split unbind select "
        "narrow __getitem__ index_select diagonal pixel_shuffle pixel_unshuffle channel_shuffle unfold "
        "cat concat concatenate stack hstack vstack",
    ),
    "pad": _pads,
    **_rules(_reduces, "mean sum amax amin max min logsumexp"),
    **_rules(
        _pools,
        "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d "
        "adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d lp_pool1d lp_pool2d "
        "interpolate",
    ),
    **_rules(_multiplies, "matmul __matmul__ __rmatmul__ mm bmm"),
    "scaled_dot_product_attention": _attends,
    **_rules(_refuses, "einsum tensordot bilinear cumsum cumprod sort topk"),
}
