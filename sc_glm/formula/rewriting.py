"""Expressions as they are run: on the columns that are meant, and in double precision."""

from __future__ import annotations

import ast
import keyword
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sc_glm.formula.allowed_names import AS_THEY_ARE, CONTRAST_CLASSES, NUMPY, TRANSFORMS

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "AS_NUMBER",
    "RESERVED",
    "Expression",
    "as_number",
    "in_double_precision",
    "makes_levels",
    "requoted",
    "unquoted",
]

# Every whole number up to here is one of double precision.
MAX_EXACT = 2**53
# The name under which rewritten expressions call `as_number`. No column has it.
AS_NUMBER = "_number"

# Begins the name by which an expression calls a column that Python could not name.
RESERVED = "_column_"

_NUMERIC = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow)
_NOT_COLUMNS = {*TRANSFORMS, *CONTRAST_CLASSES, "Treatment", "contr", "lag", "np"}


class Expression(NamedTuple):
    """An expression as it is run, and the columns that its names stand for."""

    code: str
    columns: Mapping[str, str]


def unquoted(expression: str) -> tuple[str, dict[str, str]]:
    """Write the names in backquotes as names of Python.

    formulaic's own way draws random names, and replaces a name wherever its letters stand.

    Parameters
    ----------
    expression : str
        One expression, with names of columns in backquotes.

    Returns
    -------
    code : str
        The expression without backquotes.
    aliases : dict of str to str
        Of names in `code`, the columns that they stand for.

    Examples
    --------
    >>> from sc_glm.formula.rewriting import requoted, unquoted
    >>> code, aliases = unquoted("np.log(`my x`)")
    >>> code, aliases
    ('np.log(_column_6d792078_)', {'_column_6d792078_': 'my x'})
    >>> requoted(code)
    'np.log(`my x`)'
    """
    aliases: dict[str, str] = {}

    def name(found: re.Match[str]) -> str:
        if found[1] is None:
            return found[0]
        alias = _alias(found[1])
        aliases[alias] = found[1]
        return alias

    return re.sub(r"""'[^']*'|"[^"]*"|`([^`]+)`""", name, expression), aliases


def requoted(code: str) -> str:
    """Write names as they stood in backquotes before :func:`unquoted`."""
    return re.sub(
        f"{RESERVED}([0-9a-f]+)_",
        lambda found: f"`{bytes.fromhex(found[1]).decode('utf-8', 'surrogatepass')}`",
        code,
    )


def in_double_precision(
    code: str, aliases: Mapping[str, str], *, numbers: bool = True
) -> Expression:
    """Rewrite a checked expression so that it is computed as it reads.

    NumPy's whole numbers overflow without a word, its conditions add up to conditions, and
    functions of conditions have half precision. So what arithmetic and numeric functions are given
    becomes float64. Conditions, comparisons and levels keep what they are. Columns get names that
    are no function's.

    Parameters
    ----------
    code : str
        One Python expression.
    aliases : mapping of str to str
        Of names in `code`, the columns that they stand for.
    numbers : bool, default=True
        False leaves numbers as they are, and renames columns only.

    Returns
    -------
    Expression
        The expression, in which ``_number`` is :func:`as_number`.

    Examples
    --------
    >>> from sc_glm.formula.rewriting import in_double_precision
    >>> in_double_precision("I(reads ** 3)", {}).code
    'I(_number(reads) ** 3)'
    >>> in_double_precision("np.log(np)", {}).code
    'np.log(_number(_column_6e70_))'
    """
    rewriter = _Rewriter(aliases, numbers=numbers)
    tree = rewriter.visit(ast.parse(code, mode="eval"))
    return Expression(ast.unparse(tree), rewriter.columns)


def makes_levels(code: str) -> bool:
    """Whether an expression is a call of ``C`` or ``hashed``, whose values are levels."""
    match ast.parse(code, mode="eval").body:
        case ast.Call(func=ast.Name(id="C" | "hashed")):
            return True
    return False


def as_number(values: Any) -> Any:
    """Return whole numbers and conditions as float64, and everything else as it is.

    Raises
    ------
    ValueError
        If whole numbers are not float64's.
    """
    kind = getattr(getattr(values, "dtype", None), "kind", "")
    if kind not in ("b", "i", "u"):
        return values
    if kind != "b" and np.size(values):
        low, high = int(np.min(values)), int(np.max(values))
        if max(-low, high) > MAX_EXACT:
            raise ValueError(
                f"{high if high > MAX_EXACT else low} is a whole number beyond 2**53, with which "
                "nothing can be computed in double precision. Subtract or divide before"
            )
    return values.astype(np.float64)


class _Rewriter(ast.NodeTransformer):
    """Walks through what has a value for every row. Constants of functions stay as they are."""

    def __init__(self, aliases: Mapping[str, str], *, numbers: bool) -> None:
        self.aliases = aliases
        self.numbers = numbers
        self.columns: dict[str, str] = {}

    def number(self, node: ast.expr) -> ast.expr:
        if not self.numbers or isinstance(node, ast.Constant):
            return node
        return ast.Call(ast.Name(AS_NUMBER, ast.Load()), [node], [])

    def column(self, name: str) -> ast.Name:
        spelled = _spelled(name)
        self.columns[spelled] = name
        return ast.Name(spelled, ast.Load())

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return self.column(self.aliases.get(node.id, node.id))

    def visit_Attribute(self, node: ast.Attribute) -> ast.Attribute:
        return node  # such as np.pi

    def visit_BinOp(self, node: ast.BinOp) -> ast.BinOp:
        left, right = self.visit(node.left), self.visit(node.right)
        if isinstance(node.op, _NUMERIC):
            left, right = self.number(left), self.number(right)
        return ast.BinOp(left, node.op, right)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.UnaryOp:
        operand = self.visit(node.operand)
        if isinstance(node.op, ast.UAdd | ast.USub):
            operand = self.number(operand)
        return ast.UnaryOp(node.op, operand)

    def visit_Call(self, node: ast.Call) -> ast.Call | ast.Name:
        match node.func:
            case ast.Name(id="Q"):
                return self.column(_quoted(node))
            case ast.Name(id=name):
                signature = TRANSFORMS[name]
            case ast.Attribute(attr=name):
                signature = NUMPY[name]
        values = [self.visit(argument) for argument in node.args[: signature.expressions]]
        if name not in AS_THEY_ARE:
            values = [self.number(value) for value in values]
        constants = node.args[signature.expressions :]
        return ast.Call(node.func, [*values, *constants], node.keywords)


def _quoted(call: ast.Call) -> str:
    argument = call.args[0] if call.args else call.keywords[0].value
    return argument.value  # type: ignore[attr-defined]


def _spelled(name: str) -> str:
    """Return a name for a column, one for each: Python's, and none of a function."""
    if (
        name.isascii()
        and name.isidentifier()
        and not name.startswith("_")
        and not keyword.iskeyword(name)
        and name not in _NOT_COLUMNS
    ):
        return name
    return _alias(name)


def _alias(name: str) -> str:
    return f"{RESERVED}{name.encode('utf-8', 'surrogatepass').hex()}_"
