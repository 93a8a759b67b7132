"""A way to prune, in one line of text: `score(option=value, ...)/selector(option=value, ...)`."""

from __future__ import annotations

import ast
import inspect
from dataclasses import MISSING, dataclass, fields
from typing import Any

from . import scores, select
from .prune import SELECT_AT

# The hard threshold, Algorithm 1 with its 1/(s p) in the weights, and the paper's binary random mask.
SELECTS = ("threshold", "multinomial", "without_replacement")
SCALES = ("fold", "keep")
# Options of `prune` that stand in the score's parentheses, and those in the selector's with their defaults.
_OF_PRUNE = ("iterations", "schedule", "scope", "distribution", "inputs", "redraw")
_AFTER = {"at": "end", "scale": "fold"}

Options = dict[str, Any]


@dataclass(frozen=True)
class Method:
    """A score, a selector and the other arguments of `prune`, with the text that names them.

    Args:
        text: canonical: options sorted, those that are the default left out.
        score, select: objects, as `prune` takes them.
        arguments: the other keywords of `prune`.
        scale: of `sparsify`: "fold" or "keep".
    """

    text: str
    score: scores.Score
    select: select.Selector
    arguments: Options
    scale: str

    @classmethod
    def parse(cls, text: str) -> Method:
        """Read `score(option=value, ...)/selector(option=value, ...)`; a plain name has no options.

        The score's parentheses take the fields of its class and `prune`'s iterations, schedule, scope, distribution,
        inputs and redraw; the selector's take the fields of its class, at=end|each (`prune`'s select_at) and
        scale=fold|keep (`sparsify`'s). Values are Python literals; a word needs no quotes.

            synflow(iterations=1,inputs=chi)/multinomial(at=each,rescale=False)

        Raises:
            ValueError: text of another form, an unknown name or option, or a value that its class refuses.
        """
        (score, before), (selector, after) = _parts(text)
        if score not in scores.names():
            raise ValueError(f"method: score must be one of {', '.join(scores.names())}, got {score!r} in {text!r}")
        if selector not in select.names():
            raise ValueError(
                f"method: selector must be one of {', '.join(select.names())}, got {selector!r} in {text!r}"
            )
        scorer, before = _made(type(scores.get(score)), before, _OF_PRUNE, text)
        chooser, after = _made(type(select.get(selector)), after, tuple(_AFTER), text)
        arguments = {name: value for name, value in before.items() if name in _OF_PRUNE}
        if after.get("at", "end") not in SELECT_AT:
            raise ValueError(f"method: at must be end or each, got {after['at']!r} in {text!r}")
        if after.get("scale", "fold") not in SCALES:
            raise ValueError(f"method: scale must be {' or '.join(SCALES)}, got {after['scale']!r} in {text!r}")
        after = {name: value for name, value in after.items() if _AFTER.get(name, MISSING) != value}
        if "at" in after:
            arguments["select_at"] = after["at"]
        canonical = f"{_written(score, before)}/{_written(selector, after)}"
        return cls(canonical, scorer, chooser, arguments, after.get("scale", "fold"))

    def __str__(self) -> str:
        return self.text

    @property
    def ranking(self) -> str:
        """The text of what decides the scores: methods of one ranking may share them."""
        return self.text if self.arguments.get("select_at") == "each" else self.text.partition("/")[0]


def expand(text: str) -> list[str]:
    """Return the canonical texts of a method: one if it names a selector, else one for each of `SELECTS`.

    Raises:
        ValueError: see `Method.parse`.
    """
    whole = [text] if _split(text)[1] is not None else [f"{text}/{each}" for each in SELECTS]
    return [str(Method.parse(each)) for each in whole]


def _split(text: str) -> tuple[ast.expr, ast.expr | None]:
    """The form happens to be Python's own: a quotient of names or calls."""
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except SyntaxError:
        raise _malformed(text) from None
    if isinstance(tree, ast.BinOp) and isinstance(tree.op, ast.Div):
        return tree.left, tree.right
    return tree, None


def _parts(text: str) -> tuple[tuple[str, Options], tuple[str, Options]]:
    score, selector = _split(text)
    if selector is None:
        raise _malformed(text)
    return _named(score, text), _named(selector, text)


def _named(node: ast.expr, text: str) -> tuple[str, Options]:
    if isinstance(node, ast.Name):
        return node.id, {}
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.args:
        raise _malformed(text)
    options: Options = {}
    for keyword in node.keywords:
        if keyword.arg is None:
            raise _malformed(text)
        try:
            word = keyword.value
            options[keyword.arg] = word.id if isinstance(word, ast.Name) else ast.literal_eval(word)
        except ValueError:
            raise _malformed(text) from None
    return node.func.id, options


def _malformed(text: str) -> ValueError:
    return ValueError(f"method: must be score(option=value, ...)/selector(option=value, ...), got {text!r}")


def _made(cls: type, options: Options, others: tuple[str, ...], text: str) -> tuple[Any, Options]:
    """The object with its options, and those of them and of `others` that are not its defaults."""
    defaults = {field.name: field.default for field in fields(cls)}
    for name in options:
        if name not in defaults and name not in others:
            known = ", ".join([*defaults, *others])
            raise ValueError(f"method: options of {_called(cls)} must be among {known}, got {name!r} in {text!r}")
    made = cls(**{name: value for name, value in options.items() if name in defaults})
    return made, {name: value for name, value in options.items() if defaults.get(name, MISSING) != value}


def _called(cls: type) -> str:
    return str(inspect.getattr_static(cls, "name"))


def _written(name: str, options: Options) -> str:
    if not options:
        return name
    return f"{name}({','.join(f'{key}={_word(options[key])}' for key in sorted(options))})"


def _word(value: Any) -> str:
    return value if isinstance(value, str) and value.isidentifier() else repr(value)
