"""Activations that cannot overflow or vanish: a tensor of mantissas with one power of two."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ._stored import Stored, conv2d, linear, value

# The peak of a product is brought back to [1/2, 1) where it leaves 2^low ... 2^high: an ordinary net is not touched,
# and what one layer can do to a peak stays far from the ends of the type.
_ROOM = {torch.float64: (-256, 256)}
_ROOM_OF_OTHERS = (-16, 48)
# How far below the exponent of a sum a term may lie in float32: its small entries keep 2^-26 before they lose digits.
_DEPTH = 100

_Rule = Callable[[Any, Any, Any], Any]


class Scaled(Tensor):
    """A tensor of mantissas with one exponent: value = mantissa * 2^exponent.

    Every op on it runs on the mantissas: products bring their result back into range by an exact power of two, sums
    align their terms, and what is homogeneous of degree one keeps the exponent. So a forward pass is that of the plain
    tensors to rounding, and gradients are those with respect to the mantissas. Any other op gets the value itself or,
    where that does not fit the type, raises OverflowError.

    An in-place op never changes an exponent, so views of the same memory stay true.
    """

    exponent: int

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run one op of the forward pass by the rule of its name."""
        kwargs = kwargs or {}
        if func in _READING_STORED:
            func = _READING_STORED[func]
        elif Stored in types:
            args, kwargs = _map(value, args), dict(_map(value, kwargs))
        with torch._C.DisableTorchFunctionSubclass():
            if func in _METADATA:
                return func(*args, **kwargs)
            if _all_zero(args) and _all_zero(kwargs.values()):  # an ordinary net: the mantissas are the values
                result = func(*args, **kwargs)
                return _renormalised(result, 0) if func.__name__ in _PRODUCTS else _mark(result, 0)
            # Without a graph (inside a custom autograd Function) the backward could not see a change of exponent.
            rule = _RULES.get(func.__name__, _by_value) if torch.is_grad_enabled() else _by_value
            return rule(func, args, kwargs)


def scaled(mantissa: Tensor, exponent: int = 0) -> Scaled:
    """Return a tensor of value mantissa * 2^exponent that shares the memory and the graph of `mantissa`."""
    return _mark(mantissa.view_as(mantissa), exponent)


def times_power(x: Tensor, power: int) -> Tensor:
    """Return x * 2^power, exact wherever the result is a normal number."""
    # In steps, for 2^power itself may not fit the type where the product does.
    furthest = 1000 if x.dtype == torch.float64 else 100
    power = max(-2200, min(2200, power))
    while power:
        step = max(-furthest, min(furthest, power))
        x, power = x * 2.0**step, power - step
    return x


def _mark(result: Any, exponent: int) -> Any:
    """Make Scaled, in place and without a node in the graph, every floating-point tensor in a result."""
    for tensor in (result,) if type(result) in (Tensor, Scaled) else _tensors(result):
        if tensor.is_floating_point():
            tensor.__class__ = Scaled
            tensor.exponent = exponent
    return result


def _tensors(tree: Any) -> Iterator[Any]:
    if isinstance(tree, Tensor):
        if tree.is_floating_point():
            yield tree
    elif isinstance(tree, (tuple, list)):
        for branch in tree:
            yield from _tensors(branch)
    elif isinstance(tree, dict):
        for branch in tree.values():
            yield from _tensors(branch)


def _map(change: Callable[[Any], Any], tree: Any) -> Any:
    """Apply `change` to every leaf of tuples, lists and dicts."""
    if type(tree) in (tuple, list):
        return type(tree)(_map(change, branch) for branch in tree)
    if type(tree) is dict:
        return {key: _map(change, branch) for key, branch in tree.items()}
    return change(tree)


def _exponent(x: Any) -> int:
    return x.exponent if type(x) is Scaled else 0


def _exponents(tree: Any) -> list[int]:
    if type(tree) is Scaled:
        return [tree.exponent]
    branches = tree.values() if type(tree) is dict else tree if isinstance(tree, (tuple, list)) else ()
    return [exponent for branch in branches for exponent in _exponents(branch)]


def _all_zero(arguments: Iterable[Any]) -> bool:
    for x in arguments:  # flat arguments are nearly all there are, and this runs for every op
        kind = type(x)
        if (kind is Scaled and x.exponent) or (kind in (tuple, list, dict) and any(_exponents(x))):
            return False
    return True


def _peak(x: Tensor) -> float:
    if not x.numel():
        return 0.0
    low, high = x.detach().aminmax()  # a NaN passes into both; the infinity norm takes ten times as long
    return max(high.item(), -low.item())


def _bits(x: Any) -> int | None:
    """Return k with 2^(k-1) <= the largest |x| < 2^k, of a tensor or number; None if that is zero or not finite."""
    peak = _peak(x) if isinstance(x, Tensor) else abs(x)
    return math.frexp(peak)[1] if peak and math.isfinite(peak) else None


def _renormalised(result: Tensor, exponent: int) -> Any:
    """Mark the result of a product, with its peak brought back into range."""
    bits = _bits(result)
    low, high = _ROOM.get(result.dtype, _ROOM_OF_OTHERS)
    if bits is None or low < bits <= high:
        return _mark(result, exponent)
    return _mark(times_power(result, -bits), exponent + bits)


def _common(exponents: Iterable[int], terms: Iterable[Any]) -> int:
    """Return the exponent in which to add: the largest, below zero also that of the peak of every plain term."""
    top = max(exponents)
    if top >= 0:
        return top
    plain = [_bits(t) for t in terms if t is not None and type(t) is not Scaled]
    return max([top, *(bits for bits in plain if bits is not None)])


def _moved(x: Tensor, power: int) -> Tensor:
    """Return x * 2^power for a sum; raise where that would lose x and float64 would not.

    What is lost beside the peak of a sum can be all that reaches a unit whose other inputs are masked.
    """
    if power < -_DEPTH and x.dtype != torch.float64 and (bits := _bits(x)) is not None and bits + power < -_DEPTH:
        raise OverflowError(f"synflow: terms of a sum must be within 2^{_DEPTH} of each other, got 2^{bits + power}")
    return times_power(x, power)


def _under(exponent: int, term: Any) -> Any:
    """Return the mantissa of a tensor, number or None under that exponent."""
    if isinstance(term, Tensor):
        return _moved(term, _exponent(term) - exponent)
    return math.ldexp(term, max(-2000, min(900, -exponent))) if term and exponent else term


def _keeps(func: Any, args: Any, kwargs: Any) -> Any:
    """Degree one in the one Scaled argument, or no arithmetic at all: f(2^e x) = 2^e f(x)."""
    exponents = set(_exponents((args, kwargs)))
    if len(exponents) != 1:
        return _by_value(func, args, kwargs)
    return _mark(func(*args, **kwargs), exponents.pop())


def _adds(func: Any, args: Any, kwargs: Any) -> Any:
    """Degree one in all terms together: sums, and choices between terms."""
    skip = 1 if func.__name__ == "where" else 0
    named = {key: kwargs[key] for key in ("other", "min", "max") if key in kwargs}
    terms = [*args[skip:], *named.values()]
    exponents = _exponents(terms)
    if not exponents:
        return _by_value(func, args, kwargs)
    e = _common(exponents, terms)
    moved = [_under(e, t) for t in args[skip:]]
    named = {key: _under(e, t) for key, t in named.items()}
    return _mark(func(*args[:skip], *moved, **{**kwargs, **named}), e)


def _reduces_or_chooses(func: Any, args: Any, kwargs: Any) -> Any:
    """max and min: over dimensions of one tensor, or between two."""
    two = isinstance(args[1] if len(args) > 1 else kwargs.get("other"), Tensor)
    return (_adds if two else _keeps)(func, args, kwargs)


def _joins(func: Any, args: Any, kwargs: Any) -> Any:
    """Put tensors side by side under one exponent."""
    tensors = args[0] if args else kwargs["tensors"]
    e = _common(_exponents(tensors), tensors)
    rest = {key: value for key, value in kwargs.items() if key != "tensors"}
    return _mark(func([_under(e, t) for t in tensors], *args[1:], **rest), e)


def _adds_in_place(func: Any, args: Any, kwargs: Any) -> Any:
    """Add or copy into a tensor that keeps its exponent (0 if it is plain)."""
    e = _exponent(args[0])
    named = {key: _under(e, t) if key in ("other", "src") else t for key, t in kwargs.items()}
    return _mark(func(args[0], *(_under(e, t) for t in args[1:]), **named), e)


def _sets(func: Any, args: Any, kwargs: Any) -> Any:
    """x[index] = value."""
    return func(args[0], args[1], _under(_exponent(args[0]), args[2]))


def _multiplies(func: Any, args: Any, kwargs: Any) -> Any:
    """Degree one in each Scaled argument: exponents add."""
    return _renormalised(func(*args, **kwargs), sum(_exponents((args, kwargs))))


def _divides(func: Any, args: Any, kwargs: Any) -> Any:
    """Exponents subtract."""
    if kwargs.get("rounding_mode"):
        return _by_value(func, args, kwargs)
    above, below = args[0], args[1] if len(args) > 1 else kwargs["other"]
    if func.__name__ == "__rtruediv__":
        above, below = below, above
    return _renormalised(func(*args, **kwargs), _exponent(above) - _exponent(below))


def _multiplies_in_place(func: Any, args: Any, kwargs: Any) -> Any:
    """Multiply or divide, by the value of the other, a tensor that keeps its exponent."""
    rest, named = _map(lambda t: _value(func, t), (args[1:], kwargs))
    return _mark(func(args[0], *rest, **named), _exponent(args[0]))


def _affine(shift: str, first: str, second: str) -> _Rule:
    """Make the rule of a product plus a shift from the names, in the order of the arguments, that start a signature."""
    names = (first, second, shift) if shift == "bias" else (shift, first, second)

    def product(func: Any, args: Any, kwargs: Any) -> Any:
        bound = dict(zip(names, args, strict=False)) | kwargs
        term = bound.get(shift)
        e = own = sum(_exponents([bound[first], bound[second]]))
        if term is not None and (own or type(term) is Scaled):
            e = _common([own, *_exponents(term)], [term])
            bound[first] = _moved(bound[first], own - e)
            bound[shift] = _under(e, term)
        rest = {key: value for key, value in bound.items() if key not in names}
        return _renormalised(func(*(bound.get(name) for name in names), *args[3:], **rest), e)

    return product


def _batch_norm(func: Any, args: Any, kwargs: Any) -> Any:
    """In eval mode, (x - mean) gamma / sqrt(var + eps) + beta, where mean and beta are values."""
    x, mean, var = args[:3]
    rest = dict(zip(("weight", "bias", "training", "momentum", "eps"), args[3:], strict=False)) | kwargs
    if rest.get("training") or mean is None or type(x) is not Scaled:
        return _by_value(func, args, kwargs)
    e = x.exponent
    if e:
        e = _common([e], [mean, rest.get("bias")])
        x, mean, rest["bias"] = _under(e, x), _under(e, mean), _under(e, rest.get("bias"))
    return _renormalised(func(x, mean, var, **rest), e)


def _pad(func: Any, args: Any, kwargs: Any) -> Any:
    value = args[3] if len(args) > 3 else kwargs.get("value")
    return (_by_value if value else _keeps)(func, args, kwargs)


def _value(func: Any, x: Any) -> Any:
    """Return the plain tensor mantissa * 2^exponent, or raise."""
    if not _exponent(x):
        return x
    value, peak = times_power(x, x.exponent), _peak(x)
    fits = torch.is_grad_enabled() and math.isfinite(_peak(value)) and (_peak(value) > 0 or peak == 0)
    if not fits:
        raise OverflowError(
            f"synflow: {func.__name__} needs the values of an activation and these do not fit {x.dtype} or its graph, "
            f"got a peak of {peak} * 2^{x.exponent}"
        )
    return value


def _by_value(func: Any, args: Any, kwargs: Any) -> Any:
    """Any other op, of the values themselves."""
    name = func.__name__
    in_place = name == "__set__" or (name.endswith("_") and not name.endswith("__"))
    if in_place and args and _exponent(args[0]):
        raise OverflowError(f"synflow: {name} needs a plain tensor, got an activation scaled by 2^{-args[0].exponent}")
    values, named = _map(lambda t: _value(func, t), (args, kwargs))
    return _mark(func(*values, **named), 0)


def _rules(rule: _Rule, names: str) -> dict[str, _Rule]:
    return dict.fromkeys(names.split(), rule)


_RULES: dict[str, _Rule] = {
    **_rules(
        _keeps,
        "__get__ __len__ size dim ndimension numel nelement stride is_contiguous is_floating_point is_complex "
        "get_device requires_grad_ detach detach_ clone contiguous to float double type_as "
        "relu relu_ leaky_relu leaky_relu_ prelu abs abs_ neg neg_ negative __neg__ __pos__ "
        "dropout dropout1d dropout2d dropout3d feature_dropout "
        "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d "
        "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d "
        "adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d "
        "view view_as reshape reshape_as flatten unflatten ravel permute transpose t swapaxes movedim "
        "squeeze squeeze_ unsqueeze unsqueeze_ expand expand_as repeat tile flip roll "
        "chunk split tensor_split unbind select narrow __getitem__ index_select gather diagonal unfold fold "
        "pixel_shuffle pixel_unshuffle channel_shuffle interpolate mean sum amax amin cumsum "
        "embedding repeat_interleave",
    ),
    **_rules(_adds, "add __add__ __radd__ sub subtract __sub__ __rsub__ rsub"),
    **_rules(_adds, "maximum minimum where clamp clamp_min clamp_max"),
    **_rules(_reduces_or_chooses, "max min"),
    **_rules(_adds_in_place, "add_ __iadd__ sub_ __isub__ copy_"),
    **_rules(_joins, "cat concat concatenate stack hstack vstack"),
    **_rules(_multiplies, "mul multiply __mul__ __rmul__"),
    **_rules(_multiplies, "matmul __matmul__ __rmatmul__ mm bmm mv dot inner outer einsum"),
    **_rules(_divides, "div divide true_divide __truediv__ __rtruediv__"),
    **_rules(_multiplies_in_place, "mul_ __imul__ div_ __itruediv__"),
    **_rules(_affine("bias", "input", "weight"), "linear conv1d conv2d conv3d"),
    **_rules(_affine("bias", "input", "weight"), "conv_transpose1d conv_transpose2d conv_transpose3d"),
    "addmm": _affine("input", "mat1", "mat2"),
    "baddbmm": _affine("input", "batch1", "batch2"),
    "batch_norm": _batch_norm,
    "pad": _pad,
    "__setitem__": _sets,
}
_READING_STORED = {torch.conv2d: conv2d, F.linear: linear}
_METADATA = {Tensor.dim, Tensor.size, Tensor.numel}
_PRODUCTS = {
    name for name, rule in _RULES.items() if rule in (_multiplies, _divides, _batch_norm) or rule.__name__ == "product"
}
