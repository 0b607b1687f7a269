"""Checks of the Python expressions in a formula against an allow-list, before any of them runs."""

from __future__ import annotations

import ast
import operator
import re
from keyword import iskeyword
from typing import TYPE_CHECKING, Any, NamedTuple

from sc_glm.formula.allowed_names import (
    ALLOWED_FUNCTIONS,
    ALLOWED_SYNTAX,
    CONDITIONS_SYNTAX,
    CONTRAST_CLASSES,
    CONTRASTS,
    NUMPY_CONSTANTS,
    NUMPY_FUNCTIONS,
    REPLACEMENTS,
    STATEFUL,
    TERM_FUNCTIONS,
    UNQUALIFIED_FUNCTIONS,
    Signature,
    replacement_hint,
)
from sc_glm.formula.covariates import missing_column_message
from sc_glm.formula.rewriting import restore_quoted_names

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sc_glm.formula.covariates import Columns

__all__ = ["MAX_FORMULA_LENGTH", "check_expression"]

# Characters of a formula. Frames with many columns need few, since `.` stands for every column.
MAX_FORMULA_LENGTH = 20_000
# Levels of nesting. People write far fewer, and Python's own limit is far higher.
MAX_NESTING = 100
# NumPy computes with numbers of at most 64 bits. Python's integers grow until memory is full.
MAX_INTEGER = 2**63 - 1

# They would end the quotes that formulaic puts around the text of a call.
QUOTES = frozenset("\"'`")

ARITHMETIC_OPERATORS: Mapping[type[ast.operator | ast.unaryop], Callable[..., Any]] = {
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
COMPARISON_OPERATORS = (ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE)


class Value(NamedTuple):
    """Properties of an expression that are known without running it."""

    is_text: bool = False
    reads_column: bool = False
    number: float | None = None
    """The value, if it is arithmetic with numbers only."""


def check_expression(
    code: str,
    aliases: Mapping[str, str],
    columns: Columns,
    where: str,
) -> set[str]:
    """Check an expression against the allow-list, and return the columns that it reads.

    Parameters
    ----------
    code : str
        A Python expression.
    aliases : mapping of str to str
        The columns that aliases in `code` stand for.
    columns : Columns
        Names and kinds of the available columns.
    where : str
        Part and formula, with which messages begin.

    Returns
    -------
    set of str
        Names of the columns.

    Raises
    ------
    ValueError
        If `code` holds more than arithmetic, comparisons, and calls of allowed functions.
    """
    if "\\" in code:
        raise ValueError(f"{where}: a backslash is not allowed in an expression.")
    try:
        tree = ast.parse(code, mode="eval").body
    # Python's parser raises other errors for nesting, null bytes and surrogates.
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        # R's as.factor(x) does not parse as a call, since `as` is a keyword of Python.
        reason: object = "Write C(x)." if code.lstrip().startswith("as.factor") else error
        words = re.findall(r"\w+", code)
        keywords = [name for name in columns.names if name in words and iskeyword(name)]
        if keywords:
            reason = f"{_keyword_hint(keywords[0])}."
        raise ValueError(
            f"{where}: {_truncated(restore_quoted_names(code))!r} is not a Python expression. "
            f"{reason}"
        ) from error
    nodes: list[ast.AST] = [tree]
    for _ in range(MAX_NESTING):
        nodes = [child for node in nodes for child in ast.iter_child_nodes(node)]
    if nodes:
        raise ValueError(
            f"{where}: {_truncated(restore_quoted_names(code))!r} has too many nested operations: "
            f"at most {MAX_NESTING} are allowed."
        )
    checker = _Checker(tree, aliases, columns, where)
    checker.check(tree)
    return checker.read


class _Checker:
    """Checks one expression. Syntax for which there is no method here is refused."""

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
        self.checks: Mapping[type[ast.expr], Callable[[Any], Value]] = {
            ast.Attribute: self.attribute,
            ast.BinOp: self.binary,
            ast.Call: self.call,
            ast.Compare: self.comparison,
            ast.Constant: self.constant,
            ast.Name: self.name,
            ast.UnaryOp: self.unary,
        }

    def refusal(self, node: ast.AST, reason: str) -> ValueError:
        piece = _truncated(restore_quoted_names(ast.unparse(node)))
        return ValueError(f"{self.where}: {piece!r} is not allowed in a formula: {reason}.")

    def check(self, node: ast.expr) -> Value:
        """Check an expression that has a value for every row."""
        check = self.checks.get(type(node))
        if check is None:
            raise self.refusal(node, REPLACEMENTS.get(type(node).__name__, ALLOWED_SYNTAX))
        return check(node)

    def constant(self, node: ast.Constant) -> Value:
        value = node.value
        if (isinstance(value, bool) or value is None) and str(value) in self.columns.names:
            raise self.refusal(node, _keyword_hint(str(value)))
        if isinstance(value, str):
            return Value(is_text=True)
        if isinstance(value, float) or (isinstance(value, int) and value <= MAX_INTEGER):
            return Value(number=value)
        raise self.refusal(node, "constants are strings and numbers of at most 64 bits")

    def name(self, node: ast.Name) -> Value:
        return self.column(node, self.aliases.get(node.id, node.id))

    def column(self, node: ast.expr, name: str) -> Value:
        if name.startswith("__"):
            raise self.refusal(node, "names that begin with two underscores are reserved by Python")
        if name not in self.columns.names:
            raise ValueError(f"{self.where}: {missing_column_message(name, self.columns.names)}")
        self.read.add(name)
        return Value(is_text=self.columns.is_categorical(name), reads_column=True)

    def attribute(self, node: ast.Attribute) -> Value:
        if (
            isinstance(node.value, ast.Name)
            and node.value.id == "np"
            and node.attr in NUMPY_CONSTANTS
        ):
            return Value(number=NUMPY_CONSTANTS[node.attr])
        if ast.unparse(node) in self.columns.names:
            raise self.refusal(node, f"write `{ast.unparse(node)}`, in backquotes")
        raise self.refusal(node, replacement_hint(node.attr))

    def unary(self, node: ast.UnaryOp) -> Value:
        return self.arithmetic(node, node.operand)

    def binary(self, node: ast.BinOp) -> Value:
        return self.arithmetic(node, node.left, node.right)

    def arithmetic(self, node: ast.UnaryOp | ast.BinOp, *operands: ast.expr) -> Value:
        if type(node.op) not in ARITHMETIC_OPERATORS:
            raise self.refusal(node, REPLACEMENTS.get(type(node.op).__name__, ALLOWED_SYNTAX))
        values = [self.check(operand) for operand in operands]
        if any(value.is_text for value in values):
            raise self.refusal(node, "arithmetic needs numbers, but an operand is text")
        numbers = [value.number for value in values if value.number is not None]
        if len(numbers) < len(values):
            return Value(reads_column=any(value.reads_column for value in values))
        # Python computes with numbers only, not NumPy. Its integers have no bound.
        if isinstance(node.op, ast.Pow) and _min_bits_of_power(*numbers) > 64:
            raise self.refusal(node, "the number is too large")
        try:
            number = ARITHMETIC_OPERATORS[type(node.op)](*numbers)
        except (ArithmeticError, TypeError, ValueError) as error:
            raise self.refusal(node, str(error)) from error
        if not isinstance(number, float) and not (
            isinstance(number, int) and abs(number) <= MAX_INTEGER
        ):
            raise self.refusal(node, "the number is too large, or not real")
        return Value(number=number)

    def comparison(self, node: ast.Compare) -> Value:
        if len(node.ops) > 1:
            raise self.refusal(node, CONDITIONS_SYNTAX)
        if not isinstance(node.ops[0], COMPARISON_OPERATORS):
            raise self.refusal(node, REPLACEMENTS.get(type(node.ops[0]).__name__, ALLOWED_SYNTAX))
        sides = [self.check(node.left), self.check(node.comparators[0])]
        if not any(side.reads_column for side in sides):
            raise self.refusal(node, "no side of the comparison is a column")
        return Value(reads_column=True)

    def call(self, node: ast.Call) -> Value:
        name, signature = self.function(node)
        if name in TERM_FUNCTIONS and node is not self.tree:
            raise self.refusal(
                node, f"{name}(...) is a term of its own, with which nothing can be computed"
            )
        if name in STATEFUL:
            self.check_strings(node)
        fewest, most = signature.n_expressions, signature.n_expressions + len(signature.constants)
        if not fewest <= len(node.args) <= most:
            count = f"{fewest}" if fewest == most else f"{fewest} to {most}"
            raise self.refusal(
                node,
                f"{name} takes {count} argument(s) by position, not {len(node.args)}",
            )
        values = [self.check(argument) for argument in node.args[:fewest]]
        given: list[tuple[str, ast.expr]] = list(
            zip(signature.constants, node.args[fewest:], strict=False)
        )
        for keyword in node.keywords:
            if keyword.arg is None or keyword.arg not in signature.constants + signature.keywords:
                raise self.refusal(node, f"{name} has no parameter {keyword.arg or '**'} here")
            given.append((keyword.arg, keyword.value))
        for parameter, constant in given:
            self.parameter(node, parameter, constant, signature.limits.get(parameter))
        if name == "Q":
            return self.quoted(node, [constant for _, constant in given])
        if not signature.allows_text and any(value.is_text for value in values):
            raise self.refusal(node, f"{name} is a function of numbers, but an argument is text")
        if name == "I":
            return values[0]
        # The values of np.where come from its last two arguments.
        is_text = name != "isin" and any(value.is_text for value in values[-2:])
        return Value(is_text=is_text, reads_column=any(value.reads_column for value in values))

    def function(self, node: ast.Call) -> tuple[str, Signature]:
        match node.func:
            case ast.Name(id=name) if name in UNQUALIFIED_FUNCTIONS:
                return name, UNQUALIFIED_FUNCTIONS[name]
            case ast.Attribute(value=ast.Name(id="np"), attr=name) if name in NUMPY_FUNCTIONS:
                return name, NUMPY_FUNCTIONS[name]
            case ast.Attribute(attr=name) | ast.Name(id=name):
                raise self.refusal(node, replacement_hint(name))
        raise self.refusal(node, ALLOWED_FUNCTIONS)

    def quoted(self, node: ast.Call, arguments: Sequence[ast.expr]) -> Value:
        match arguments:
            case [ast.Constant(value=str() as name)]:
                return self.column(node, name)
        raise self.refusal(node, "Q takes the name of a column in quotes")

    def check_strings(self, node: ast.Call) -> None:
        """Refuse strings that would end the quotes that formulaic puts around the call."""
        for inner in ast.walk(node):
            text = inner.value if isinstance(inner, ast.Constant) else None
            if isinstance(text, str) and (not text.isprintable() or not QUOTES.isdisjoint(text)):
                raise self.refusal(node, f"{text!r} has quotes or hidden characters")

    def parameter(self, call: ast.Call, name: str, node: ast.expr, limit: int | None) -> None:
        """Check a parameter of a function, which is a constant or a contrast."""
        if name == "contrasts" and self.is_contrast(node):
            return
        value = self.literal(call, name, node)
        if limit is None or (isinstance(node, ast.Constant) and node.value is None):
            return
        many = isinstance(node, ast.List | ast.Tuple)
        size = len(node.elts) if many else value.number  # type: ignore[attr-defined]
        if size is None or not size <= limit:
            raise self.refusal(call, f"{name} must be a constant of at most {limit}")

    def literal(self, call: ast.Call, name: str, node: ast.expr) -> Value:
        match node:
            case ast.List(elts=entries) | ast.Tuple(elts=entries):
                pass
            case ast.Dict(keys=keys, values=values):
                entries = [*(key for key in keys if key is not None), *values]
            case ast.Constant(value=None):
                entries = []
            case _:
                value = self.check(node)
                if value.reads_column:
                    raise self.refusal(
                        call, f"{name} must be a constant, and not depend on a column"
                    )
                return value
        for entry in entries:
            self.literal(call, name, entry)
        return Value()

    def is_contrast(self, node: ast.expr) -> bool:
        """Return whether this is a contrast of formulaic, after checking its arguments."""
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
            raise self.refusal(node, ALLOWED_SYNTAX)
        for argument in (*node.args, *(keyword.value for keyword in node.keywords)):
            self.literal(node, "a contrast's argument", argument)
        return True


def _keyword_hint(name: str) -> str:
    return f"{name} is a keyword of Python; write `{name}` for the column"


def _truncated(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


def _min_bits_of_power(left: float, right: float) -> float:
    """Return a lower bound on the bits of a power of whole numbers; 0 for other numbers."""
    if not (isinstance(left, int) and isinstance(right, int)):
        return 0
    return (left.bit_length() - 1) * right
