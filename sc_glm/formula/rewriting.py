"""Rewrites expressions before they run: with names of columns, and in double precision."""

from __future__ import annotations

import ast
import keyword
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sc_glm.formula.allowed_names import (
    CONTRAST_CLASSES,
    NOT_CONVERTED_TO_FLOAT,
    NUMPY_FUNCTIONS,
    UNQUALIFIED_FUNCTIONS,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "ALIAS_PREFIX",
    "AS_NUMBER",
    "Expression",
    "alias_quoted_names",
    "as_number",
    "in_double_precision",
    "makes_levels",
    "restore_quoted_names",
]

# Double precision represents every whole number up to this one.
MAX_EXACT_INTEGER = 2**53
# The name under which rewritten expressions call `as_number`. No column has this name.
AS_NUMBER = "_number"

# Beginning of the alias of a column whose name is not a name in Python.
ALIAS_PREFIX = "_column_"

_ARITHMETIC = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow)
_FUNCTION_NAMES = {*UNQUALIFIED_FUNCTIONS, *CONTRAST_CLASSES, "Treatment", "contr", "lag", "np"}


class Expression(NamedTuple):
    """Code that is run, and the column that each name in it stands for."""

    code: str
    columns: Mapping[str, str]


def alias_quoted_names(expression: str) -> tuple[str, dict[str, str]]:
    """Replace names in backquotes by aliases that are names in Python.

    formulaic itself draws random aliases, and replaces a name wherever its letters occur.

    Parameters
    ----------
    expression : str
        A Python expression with names of columns in backquotes.

    Returns
    -------
    code : str
        The expression without backquotes.
    aliases : dict of str to str
        The column that each alias in `code` stands for.

    Examples
    --------
    >>> from sc_glm.formula.rewriting import alias_quoted_names, restore_quoted_names
    >>> code, aliases = alias_quoted_names("np.log(`my x`)")
    >>> code, aliases
    ('np.log(_column_6d792078_)', {'_column_6d792078_': 'my x'})
    >>> restore_quoted_names(code)
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


def restore_quoted_names(code: str) -> str:
    """Replace the aliases of :func:`alias_quoted_names` by the names in backquotes."""
    return re.sub(
        f"{ALIAS_PREFIX}([0-9a-f]+)_",
        lambda found: f"`{bytes.fromhex(found[1]).decode('utf-8', 'surrogatepass')}`",
        code,
    )


def in_double_precision(
    code: str, aliases: Mapping[str, str], *, numbers: bool = True
) -> Expression:
    """Rewrite a checked expression so that arithmetic is in double precision.

    NumPy's whole numbers overflow silently, sums of its conditions are conditions, and functions
    of conditions have half precision. So the arguments of arithmetic and of numeric functions
    become float64. Conditions, comparisons and levels keep their types. No column keeps the name
    of a function.

    Parameters
    ----------
    code : str
        A Python expression.
    aliases : mapping of str to str
        The columns that aliases in `code` stand for.
    numbers : bool, default=True
        Whether to convert numbers. False only renames columns.

    Returns
    -------
    Expression
        The rewritten expression, in which ``_number`` stands for :func:`as_number`.

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
    """Return whether an expression is a call of ``C`` or ``hashed``, whose values are levels."""
    match ast.parse(code, mode="eval").body:
        case ast.Call(func=ast.Name(id="C" | "hashed")):
            return True
    return False


def as_number(values: Any) -> Any:
    """Return whole numbers and conditions as float64, and everything else unchanged.

    Raises
    ------
    ValueError
        If float64 cannot represent the whole numbers.
    """
    kind = getattr(getattr(values, "dtype", None), "kind", "")
    if kind not in ("b", "i", "u"):
        return values
    if kind != "b" and np.size(values):
        low, high = int(np.min(values)), int(np.max(values))
        if max(-low, high) > MAX_EXACT_INTEGER:
            raise ValueError(
                f"{high if high > MAX_EXACT_INTEGER else low} is a whole number beyond 2**53, "
                "which double precision cannot represent. Subtract or divide before the fit"
            )
    return values.astype(np.float64)


class _Rewriter(ast.NodeTransformer):
    """Rewrites the parts of an expression that have a value for every row, not the constants."""

    def __init__(self, aliases: Mapping[str, str], *, numbers: bool) -> None:
        self.aliases = aliases
        self.numbers = numbers
        self.columns: dict[str, str] = {}

    def number(self, node: ast.expr) -> ast.expr:
        if not self.numbers or isinstance(node, ast.Constant):
            return node
        return ast.Call(ast.Name(AS_NUMBER, ast.Load()), [node], [])

    def column(self, name: str) -> ast.Name:
        variable = _variable_name(name)
        self.columns[variable] = name
        return ast.Name(variable, ast.Load())

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return self.column(self.aliases.get(node.id, node.id))

    def visit_Attribute(self, node: ast.Attribute) -> ast.Attribute:
        return node  # such as np.pi

    def visit_BinOp(self, node: ast.BinOp) -> ast.BinOp:
        left, right = self.visit(node.left), self.visit(node.right)
        if isinstance(node.op, _ARITHMETIC):
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
                return self.column(_quoted_column(node))
            case ast.Name(id=name):
                signature = UNQUALIFIED_FUNCTIONS[name]
            case ast.Attribute(attr=name):
                signature = NUMPY_FUNCTIONS[name]
        values = [self.visit(argument) for argument in node.args[: signature.n_expressions]]
        if name not in NOT_CONVERTED_TO_FLOAT:
            values = [self.number(value) for value in values]
        constants = node.args[signature.n_expressions :]
        return ast.Call(node.func, [*values, *constants], node.keywords)


def _quoted_column(call: ast.Call) -> str:
    argument = call.args[0] if call.args else call.keywords[0].value
    return argument.value  # type: ignore[attr-defined]


def _variable_name(name: str) -> str:
    """Return a unique name for a column that is a name in Python, and not that of a function."""
    if (
        name.isascii()
        and name.isidentifier()
        and not name.startswith("_")
        and not keyword.iskeyword(name)
        and name not in _FUNCTION_NAMES
    ):
        return name
    return _alias(name)


def _alias(name: str) -> str:
    return f"{ALIAS_PREFIX}{name.encode('utf-8', 'surrogatepass').hex()}_"
