"""Products closed under differentiation: two autograd Functions that serve every form of _forms.py, and any order.

The derivative of each of a form's three products is made of the other two. Why not register_autograd: torch.func cannot
transform it. Why each Function twice: torch.compile cannot trace one with a jvp, and forward mode needs one.
"""

# torch declares the methods of a Function with *args.
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch._functorch import eager_transforms
from torch.autograd import Function, forward_ad

from ._forms import FORMS

Static = tuple[int, ...]
Index = tuple[Tensor, ...]


def apply(
    name: str, role: int, index: Index, static: Static, p: Tensor, q: Tensor, bias: Tensor | None = None
) -> Tensor:
    """Return the product of form `name` that gives `role`; p and q are the other two in order, bias is for role 2."""
    _check_compiling(name)
    if _differentiated(p, q, bias):
        return _call(_Product, _ProductJvp, name, role, static, p, q, bias, index)
    return FORMS[name].products[role](p, q, bias, index, static)  # what autograd costs, inference need not pay


def _apply_both(name: str, index: Index, static: Static, a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    both = FORMS[name].both
    assert both is not None
    if _differentiated(a, b, c):
        return _call(_Both, _BothJvp, name, static, a, b, c, index)
    return both(a, b, c, index, static)


def _differentiated(*tensors: Tensor | None) -> bool:
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return True
    if forward_ad._current_level >= 0:
        return True
    if torch.is_grad_enabled():
        for t in tensors:
            if t is not None and t.requires_grad:
                return True
    return False


def _call(traced: type[Function], eager: type[Function], *arguments: Any) -> Any:
    if torch.compiler.is_compiling():
        return traced.apply(*arguments)
    if torch._C._are_functorch_transforms_active():
        return eager.apply(*arguments)
    # Function.apply would bind the arguments to a signature first, at 20 us a call.
    return cast(Any, super(Function, eager)).apply(*arguments)


def _check_compiling(name: str) -> None:
    if torch.compiler.is_compiling() and eager_transforms.JVP_NESTING > 0:
        raise RuntimeError(f"{name}: torch.compile of a jvp would lose its tangents; take the jvp outside compile")


class _Product(Function):
    """One product of a form: arguments (form, role, static, p, q, bias, index)."""

    @staticmethod
    def forward(
        name: str, role: int, static: Static, p: Tensor, q: Tensor, bias: Tensor | None, index: tuple[Tensor, ...]
    ):
        return FORMS[name].products[role](p, q, bias, index, static)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.form, ctx.role, ctx.static, p, q, _, index = inputs
        ctx.save_for_backward(p, q, *index)

    @staticmethod
    def backward(ctx: Any, grad: Tensor):
        p, q, *index = ctx.saved_tensors
        first, second = (r for r in range(3) if r != ctx.role)
        given = {first: p, second: q, ctx.role: grad}

        def take(role: int) -> Tensor:
            others = (given[r] for r in range(3) if r != role)
            return apply(ctx.form, role, tuple(index), ctx.static, *others)

        needs_p, needs_q, needs_bias = ctx.needs_input_grad[3:6]
        form = FORMS[ctx.form]
        if needs_p and needs_q and ctx.role == 2 and form.both is not None:
            dq, dp = _apply_both(ctx.form, tuple(index), ctx.static, given[0], given[1], given[2])
        else:
            dp = take(first) if needs_p else None
            dq = take(second) if needs_q else None
        return None, None, None, dp, dq, form.bias_gradient(grad) if needs_bias else None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], name, role, static, p, q, bias, index):
        dims = in_dims[3], in_dims[4]
        y = _vmap(info.batch_size, name, role, static, (p, q), dims, index, in_dims[6])
        if bias is not None:
            bias = bias.unsqueeze(0) if in_dims[5] is None else bias.movedim(in_dims[5], 0)
            shape = [len(bias), *(1 for _ in y.shape[1:])]
            shape[FORMS[name].channel + 1] = -1
            y = y + bias.view(shape)
        return y, 0


class _ProductJvp(_Product):
    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _Product.setup_context(ctx, inputs, output)
        ctx.save_for_forward(inputs[3], inputs[4], *inputs[6])

    @staticmethod
    def jvp(ctx: Any, *tangents: Any):
        dp, dq, dbias = tangents[3:6]
        p, q, *index = ctx.saved_tensors
        terms = []
        if dp is not None:
            terms.append(apply(ctx.form, ctx.role, tuple(index), ctx.static, dp, q))
        if dq is not None:
            terms.append(apply(ctx.form, ctx.role, tuple(index), ctx.static, p, dq))
        if not terms:
            zero = torch.zeros_like(p)
            terms.append(apply(ctx.form, ctx.role, tuple(index), ctx.static, zero, q))
        tangent = terms[0] if len(terms) == 1 else terms[0] + terms[1]
        return tangent if dbias is None else FORMS[ctx.form].add_bias(tangent, dbias)


class _Both(Function):
    """Products 1 and 0 in one pass, the order of the raw operations: arguments (form, static, a, b, c, index)."""

    @staticmethod
    def forward(name: str, static: Static, a: Tensor, b: Tensor, c: Tensor, index: Index):
        both = FORMS[name].both
        assert both is not None
        return both(a, b, c, index, static)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.form, ctx.static, a, b, c, index = inputs
        ctx.save_for_backward(a, b, c, *index)

    @staticmethod
    def backward(ctx: Any, to_b: Tensor, to_a: Tensor):
        """The gradient of <to_a, dt/da (b, c)> + <to_b, dt/db (a, c)> = t(to_a, b, c) + t(a, to_b, c)."""
        a, b, c, *index = ctx.saved_tensors

        def take(role: int, p: Tensor, q: Tensor) -> Tensor:
            return apply(ctx.form, role, tuple(index), ctx.static, p, q)

        needs_a, needs_b, needs_c = ctx.needs_input_grad[2:5]
        da = take(0, to_b, c) if needs_a else None
        db = take(1, to_a, c) if needs_b else None
        dc = take(2, to_a, b) + take(2, a, to_b) if needs_c else None
        return None, None, da, db, dc, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], name, static, a, b, c, index):
        da, db, dc = in_dims[2:5]
        first = _vmap(info.batch_size, name, 0, static, (b, c), (db, dc), index, in_dims[5])
        second = _vmap(info.batch_size, name, 1, static, (a, c), (da, dc), index, in_dims[5])
        return (second, first), (0, 0)


class _BothJvp(_Both):
    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        _Both.setup_context(ctx, inputs, output)
        ctx.save_for_forward(*inputs[2:5], *inputs[5])

    @staticmethod
    def jvp(ctx: Any, *tangents: Any):
        a, b, c, *index = ctx.saved_tensors
        da, db, dc = (torch.zeros_like(x) if t is None else t for x, t in zip((a, b, c), tangents[2:5], strict=True))

        def take(role: int, p: Tensor, q: Tensor) -> Tensor:
            return apply(ctx.form, role, tuple(index), ctx.static, p, q)

        return take(1, da, c) + take(1, a, dc), take(0, db, c) + take(0, b, dc)


def _vmap(
    size: int, name: str, role: int, static: Static, pair: tuple[Tensor, Tensor], dims: tuple[Any, ...], index: Index,
    index_dims: tuple[Any, ...],
) -> Tensor:  # fmt: skip
    """A product over a batch of `pair`, batch first: folded into the layer's own batch where possible, else a loop.

    One example at a time is what weights or masks of their own, and gradients of the weight, ask for.
    """
    first = [t if d is None else t.movedim(d, 0) for t, d in zip(pair, dims, strict=True)]
    batched = [d is not None for d in dims]
    shared = all(d is None for d in index_dims)
    if shared and not any(batched):  # the bias alone is
        return apply(name, role, index, static, *pair).unsqueeze(0)
    if shared and role != 0 and not batched[0]:
        batch = FORMS[name].batch % (first[1].ndim - 1)
        folded = first[1].movedim(0, batch).flatten(batch, batch + 1)
        y = apply(name, role, index, static, first[0], folded)
        return y.unflatten(batch, (size, -1)).movedim(batch, 0)

    def one(i: int) -> Tensor:
        p, q = (t[i] if b else t for t, b in zip(first, batched, strict=True))
        at = (t if d is None else t.select(d, i).contiguous() for t, d in zip(index, index_dims, strict=True))
        return apply(name, role, tuple(at), static, p, q)

    return torch.stack([one(i) for i in range(size)])
