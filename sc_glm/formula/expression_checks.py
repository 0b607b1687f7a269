"""Checks the Python expressions of a formula against an allow-list, before any of them is run."""

from __future__ import annotations

import ast
import operator
import re
from keyword import iskeyword
from typing import TYPE_CHECKING, Any, NamedTuple

from sc_glm.formula.allowed_names import (
    BRACKETS,
    CONTRAST_CLASSES,
    CONTRASTS,
    FUNCTIONS,
    INSTEAD,
    LANGUAGE,
    NUMBERS,
    NUMPY,
    STATEFUL,
    TERMS,
    TRANSFORMS,
    Signature,
    instead,
)
from sc_glm.formula.covariates import no_column
from sc_glm.formula.rewriting import requoted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sc_glm.formula.covariates import Columns

__all__ = ["MAX_LENGTH", "columns_read"]

# Characters of a formula. `.` stands for every column, so that a wide frame needs few.
MAX_LENGTH = 20_000
# Levels of nesting: far above what is written by hand, far below Python's own limit.
MAX_DEPTH = 100
# NumPy computes with numbers of at most 64 bits. Python's integers grow until memory is full.
MAX_INTEGER = 2**63 - 1

# What would end the quotes that formulaic puts around the text of a call.
QUOTES = frozenset("\"'`")

ARITHMETIC: Mapping[type[ast.operator | ast.unaryop], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.RShift: operator.rshift,
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
    ast.Invert: operator.inv,
}
COMPARISONS = (ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE)


class Value(NamedTuple):
    """What is known of an expression without running it."""

    text: bool = False
    column: bool = False
    number: float | None = None
    """The value, of plain arithmetic with numbers."""


def columns_read(
    code: str,
    aliases: Mapping[str, str],
    columns: Columns,
    where: str,
) -> set[str]:
    """Check an expression against the allow-list, and return the columns that it reads.

    Parameters
    ----------
    code : str
        One Python expression.
    aliases : mapping of str to str
        Of names in `code`, the columns that they stand for.
    columns : Columns
        The columns that there are.
    where : str
        Beginning of every error.

    Returns
    -------
    set of str
        The columns.

    Raises
    ------
    ValueError
        If `code` is anything but arithmetic, comparisons, and calls of the functions above.
    """
    if "\\" in code:
        raise ValueError(f"{where}: a backslash is not allowed in an expression.")
    try:
        tree = ast.parse(code, mode="eval").body
    # What Python's parser raises for nesting, null bytes and surrogates is not all SyntaxError.
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        # `as` is a word of Python's own, so that R's call does not come to be a call.
        why: object = "Write C(x)." if code.lstrip().startswith("as.factor") else error
        words = re.findall(r"\w+", code)
        own = [name for name in columns.names if name in words and iskeyword(name)]
        if own:
            why = f"{_pythons_own(own[0])}."
        raise ValueError(
            f"{where}: {_shortened(requoted(code))!r} is not a Python expression. {why}"
        ) from error
    nodes: list[ast.AST] = [tree]
    for _ in range(MAX_DEPTH):
        nodes = [child for node in nodes for child in ast.iter_child_nodes(node)]
    if nodes:
        raise ValueError(
            f"{where}: {_shortened(requoted(code))!r} is nested too deeply, or too long a sum."
        )
    checker = _Checker(tree, aliases, columns, where)
    checker.value(tree)
    return checker.read


class _Checker:
    """Walks through one expression; what no method here asks for is refused."""

    def __init__(
        self,
        tree: ast.expr,
        aliases: Mapping[str, str],
        columns: Columns,
        where: str,
    ) -> None:
        self.tree = tree
        self.aliases = aliases
        self.columns = columns
        self.where = where
        self.read: set[str] = set()
        self.kinds: Mapping[type[ast.expr], Callable[[Any], Value]] = {
            ast.Attribute: self.attribute,
            ast.BinOp: self.binary,
            ast.Call: self.call,
            ast.Compare: self.comparison,
            ast.Constant: self.constant,
            ast.Name: self.name,
            ast.UnaryOp: self.unary,
        }

    def refusal(self, node: ast.AST, reason: str) -> ValueError:
        piece = _shortened(requoted(ast.unparse(node)))
        return ValueError(f"{self.where}: {piece!r} is not allowed in a formula: {reason}.")

    def value(self, node: ast.expr) -> Value:
        """Check an expression that has a value for every row."""
        kind = self.kinds.get(type(node))
        if kind is None:
            raise self.refusal(node, INSTEAD.get(type(node).__name__, LANGUAGE))
        return kind(node)

    def constant(self, node: ast.Constant) -> Value:
        value = node.value
        if (isinstance(value, bool) or value is None) and str(value) in self.columns.names:
            raise self.refusal(node, _pythons_own(str(value)))
        if isinstance(value, str):
            return Value(text=True)
        if isinstance(value, float) or (isinstance(value, int) and value <= MAX_INTEGER):
            return Value(number=value)
        raise self.refusal(node, "constants are text and numbers of at most 64 bits")

    def name(self, node: ast.Name) -> Value:
        return self.column(node, self.aliases.get(node.id, node.id))

    def column(self, node: ast.expr, name: str) -> Value:
        if name.startswith("__"):
            raise self.refusal(node, "names that begin with two underscores are Python's own")
        if name not in self.columns.names:
            raise ValueError(f"{self.where}: {no_column(name, self.columns.names)}")
        self.read.add(name)
        return Value(text=self.columns.is_text(name), column=True)

    def attribute(self, node: ast.Attribute) -> Value:
        if isinstance(node.value, ast.Name) and node.value.id == "np" and node.attr in NUMBERS:
            return Value(number=NUMBERS[node.attr])
        if ast.unparse(node) in self.columns.names:
            raise self.refusal(node, f"write `{ast.unparse(node)}`, in backquotes")
        raise self.refusal(node, instead(node.attr))

    def unary(self, node: ast.UnaryOp) -> Value:
        return self.arithmetic(node, node.operand)

    def binary(self, node: ast.BinOp) -> Value:
        return self.arithmetic(node, node.left, node.right)

    def arithmetic(self, node: ast.UnaryOp | ast.BinOp, *operands: ast.expr) -> Value:
        if type(node.op) not in ARITHMETIC:
            raise self.refusal(node, INSTEAD.get(type(node.op).__name__, LANGUAGE))
        values = [self.value(operand) for operand in operands]
        if any(value.text for value in values):
            raise self.refusal(node, "arithmetic is of numbers, and this is of text")
        numbers = [value.number for value in values if value.number is not None]
        if len(numbers) < len(values):
            return Value(column=any(value.column for value in values))
        # Between numbers alone Python computes, not NumPy, and without bounds.
        if isinstance(node.op, ast.Pow) and _bits(*numbers) > 64:
            raise self.refusal(node, "the number is too large")
        try:
            number = ARITHMETIC[type(node.op)](*numbers)
        except (ArithmeticError, TypeError, ValueError) as error:
            raise self.refusal(node, str(error)) from error
        if not isinstance(number, float) and not (
            isinstance(number, int) and abs(number) <= MAX_INTEGER
        ):
            raise self.refusal(node, "the number is too large, or not real")
        return Value(number=number)

    def comparison(self, node: ast.Compare) -> Value:
        if len(node.ops) > 1:
            raise self.refusal(node, BRACKETS)
        if not isinstance(node.ops[0], COMPARISONS):
            raise self.refusal(node, INSTEAD.get(type(node.ops[0]).__name__, LANGUAGE))
        sides = [self.value(node.left), self.value(node.comparators[0])]
        if not any(side.column for side in sides):
            raise self.refusal(node, "it compares no column")
        return Value(column=True)

    def call(self, node: ast.Call) -> Value:
        name, signature = self.function(node)
        if name in TERMS and node is not self.tree:
            raise self.refusal(node, f"{name}(...) stands alone, nothing is computed with it")
        if name in STATEFUL:
            self.check_strings(node)
        fewest, most = signature.expressions, signature.expressions + len(signature.constants)
        if not fewest <= len(node.args) <= most:
            count = f"{fewest}" if fewest == most else f"{fewest} to {most}"
            raise self.refusal(
                node, f"{name} takes {count} by position, and is given {len(node.args)}"
            )
        values = [self.value(argument) for argument in node.args[:fewest]]
        given: list[tuple[str, ast.expr]] = list(
            zip(signature.constants, node.args[fewest:], strict=False)
        )
        for keyword in node.keywords:
            if keyword.arg is None or keyword.arg not in signature.constants + signature.keywords:
                raise self.refusal(node, f"{name} takes no {keyword.arg or '**'} here")
            given.append((keyword.arg, keyword.value))
        for parameter, constant in given:
            self.parameter(node, parameter, constant, signature.limits.get(parameter))
        if name == "Q":
            return self.quoted(node, [constant for _, constant in given])
        if not signature.text and any(value.text for value in values):
            raise self.refusal(node, f"{name} is a function of numbers, and this is text")
        if name == "I":
            return values[0]
        # The last two of np.where are what it chooses from.
        text = name != "isin" and any(value.text for value in values[-2:])
        return Value(text=text, column=any(value.column for value in values))

    def function(self, node: ast.Call) -> tuple[str, Signature]:
        match node.func:
            case ast.Name(id=name) if name in TRANSFORMS:
                return name, TRANSFORMS[name]
            case ast.Attribute(value=ast.Name(id="np"), attr=name) if name in NUMPY:
                return name, NUMPY[name]
            case ast.Attribute(attr=name) | ast.Name(id=name):
                raise self.refusal(node, instead(name))
        raise self.refusal(node, FUNCTIONS)

    def quoted(self, node: ast.Call, arguments: Sequence[ast.expr]) -> Value:
        match arguments:
            case [ast.Constant(value=str() as name)]:
                return self.column(node, name)
        raise self.refusal(node, "Q takes the name of a column, in quotes")

    def check_strings(self, node: ast.Call) -> None:
        """Refuse strings that would end the quotes into which formulaic pastes the call."""
        for inner in ast.walk(node):
            text = inner.value if isinstance(inner, ast.Constant) else None
            if isinstance(text, str) and (not text.isprintable() or not QUOTES.isdisjoint(text)):
                raise self.refusal(node, f"{text!r} has quotes or hidden characters")

    def parameter(self, call: ast.Call, name: str, node: ast.expr, limit: int | None) -> None:
        """Check what a function is told beside its data: constants, or contrasts."""
        if name == "contrasts" and self.is_contrast(node):
            return
        value = self.literal(call, name, node)
        if limit is None or (isinstance(node, ast.Constant) and node.value is None):
            return
        many = isinstance(node, ast.List | ast.Tuple)
        size = len(node.elts) if many else value.number  # type: ignore[attr-defined]
        if size is None or not size <= limit:
            raise self.refusal(call, f"{name} is a constant, at most {limit}")

    def literal(self, call: ast.Call, name: str, node: ast.expr) -> Value:
        match node:
            case ast.List(elts=entries) | ast.Tuple(elts=entries):
                pass
            case ast.Dict(keys=keys, values=values):
                entries = [*(key for key in keys if key is not None), *values]
            case ast.Constant(value=None):
                entries = []
            case _:
                value = self.value(node)
                if value.column:
                    raise self.refusal(call, f"{name} is a constant, and depends on no column")
                return value
        for entry in entries:
            self.literal(call, name, entry)
        return Value()

    def is_contrast(self, node: ast.expr) -> bool:
        """Whether this is one of formulaic's contrasts, with constants if with anything."""
        match node:
            case ast.Name(id=name):
                return name in CONTRAST_CLASSES
            case ast.Attribute(value=ast.Name(id="contr"), attr=name):
                return name in CONTRASTS
            case ast.Call(func=ast.Name(id="Treatment")):
                pass
            case ast.Call(func=function) if self.is_contrast(function):
                pass
            case _:
                return False
        if any(keyword.arg is None for keyword in node.keywords):
            raise self.refusal(node, LANGUAGE)
        for argument in (*node.args, *(keyword.value for keyword in node.keywords)):
            self.literal(node, "a contrast's argument", argument)
        return True


def _pythons_own(name: str) -> str:
    return f"{name} is a word of Python's own; write `{name}` for the column"


def _shortened(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


def _bits(left: float, right: float) -> float:
    """Return about how many bits a power has at least, if of whole numbers."""
    if not (isinstance(left, int) and isinstance(right, int)):
        return 0
    return (left.bit_length() - 1) * right
