"""Linear hypotheses about coefficients: read from text, without running it as code."""

from __future__ import annotations

import ast
import difflib
import re
from typing import TYPE_CHECKING

import numpy as np

from sc_glm.formula.expression_checks import MAX_FORMULA_LENGTH

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from numpy.typing import NDArray

__all__ = ["linear_constraints"]

# Brackets in names of coefficients, nested as deep as formulas nest them.
_BRACKETS = r"\[[^\]]*\]|\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)"
_NUMBER = r"(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))"
_UNKNOWN_NAME = rf"(?P<unknown>(?:[^\W\d]|`[^`]*`)(?:[\w.:]|`[^`]*`|{_BRACKETS})*)"


def linear_constraints(
    text: str | Sequence[str], names: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the matrix and the right-hand side of linear constraints on coefficients.

    The text is parsed, and never evaluated as code.

    Parameters
    ----------
    text : str or sequence of str
        One or several equations, such as ``"a[T.y] - a[T.x] = 0"``. Several are separated by
        commas, or are a sequence. Without ``=``, the right-hand side is zero. Names of
        coefficients may stand in backquotes. They must if they also read as a number or as a sum
        of other names, unless the name is the whole text.
    names : sequence of str
        Names of the coefficients.

    Returns
    -------
    matrix : ndarray of shape (n_constraints, n_names)
        Factors of the coefficients.
    values : ndarray of shape (n_constraints,)
        Right-hand sides. The hypothesis is ``matrix @ coef == values``.

    Raises
    ------
    TypeError
        If `text` is neither a string nor a list of strings.
    ValueError
        If the text does not parse or names an unknown coefficient, or if the constraints are not
        linearly independent.

    Examples
    --------
    >>> from sc_glm.formula.constraints import linear_constraints
    >>> linear_constraints("a - b = 0.5, c", ["a", "b", "c"])
    (array([[ 1., -1.,  0.],
           [ 0.,  0.,  1.]]), array([0.5, 0. ]))
    """
    lines = [text] if isinstance(text, str) else text
    if not (isinstance(lines, list | tuple) and all(isinstance(line, str) for line in lines)):
        raise TypeError(f"A constraint is a string, or a list of strings, not {text!r}.")
    where = f"constraint {', '.join(lines)!r}"
    if len(where) > MAX_FORMULA_LENGTH:
        raise ValueError(f"{where[:50]}... is longer than {MAX_FORMULA_LENGTH} characters.")
    try:
        indexed = [_with_indices(line, names) for line in lines]
        rows = [_equation(each, len(names)) for line in indexed for each in line.split(",")]
    except KeyError as error:
        name = str(error.args[0])
        similar = difflib.get_close_matches(name, names, n=3, cutoff=0.0)
        raise ValueError(
            f"{where}: there is no coefficient {name!r}. There are {len(names)}, such as "
            f"{similar}.{_reference_level_hint(name, names)}"
        ) from None
    except Exception as error:
        raise ValueError(
            f"{where} does not parse. A constraint is an equation between sums of coefficients and "
            "numbers, with at most one equals sign. A coefficient may be multiplied or divided by "
            "a number. Put names that hold operators in backquotes, such as `a-b`."
        ) from error
    matrix, constants = np.split(np.array(rows), [len(names)], axis=1)
    rank = np.linalg.matrix_rank(matrix) if matrix.size else 0
    if not rank or rank < len(matrix):
        raise ValueError(
            f"{where}: constraints must be linearly independent. One of them has no coefficient, "
            "or repeats or contradicts the others."
        )
    return matrix, 0.0 - constants[:, 0]


def _reference_level_hint(name: str, names: Sequence[str]) -> str:
    """Return a sentence about each level in an unknown name that may be a reference level."""

    def factor_levels(name: str) -> list[tuple[str, str]]:
        factors = re.findall(rf"(?:[^:`(\[]|`[^`]*`|{_BRACKETS})+", name)
        halves = [factor.partition("[T.") for factor in factors]
        return [(factor, level[:-1]) for factor, _, level in halves if level]

    known: dict[str, set[str]] = {}
    for other in names:
        for factor, level in factor_levels(other):
            known.setdefault(factor, set()).add(level)
    return "".join(
        f" If {level!r} is the reference level of {factor}, its coefficient is zero."
        for factor, level in factor_levels(name)
        if factor in known and level not in known[factor]
    )


def _with_indices(line: str, names: Sequence[str]) -> str:
    """Replace each name, which may hold any sign, by ``_0``, ``_1``, ..., its index.

    Raises
    ------
    KeyError
        If the line holds an unknown name.
    """
    index = {name: number for number, name in enumerate(names)}
    if line in index:
        return f"_{index[line]}"
    ambiguous = {name for name in names if _reads_as_sum(name, index)}
    quoted = {f"`{name}`": number for name, number in index.items()}
    index = {name: number for name, number in index.items() if name not in ambiguous} | quoted
    in_line = sorted((name for name in index if name in line), key=len, reverse=True)
    known_name = "|".join(re.escape(name) + r"(?![\w.:`\[(])" for name in in_line)

    def replacement(found: re.Match[str]) -> str:
        if found["unknown"] is not None:
            raise KeyError(found["unknown"].removeprefix("`").removesuffix("`"))
        return found["number"] or f" _{index[found[0]]} "

    patterns = [known_name, _NUMBER, _UNKNOWN_NAME] if known_name else [_NUMBER, _UNKNOWN_NAME]
    return re.sub("|".join(patterns), replacement, line)


def _reads_as_sum(name: str, names: Container[str]) -> bool:
    """Return whether a name also reads as a number, or as a sum of numbers and other names."""
    number = r"\d*\.?\d*(?:[eE][+-]?\d+)?"
    pieces = [piece.strip(" ()") for piece in re.split("[-+*/=,]", name)]
    return bool(re.fullmatch(number, name)) or all(
        re.fullmatch(number, piece) or (piece != name and piece in names) for piece in pieces
    )


def _equation(text: str, n_names: int) -> NDArray[np.float64]:
    """Return the factors of ``_0``, ``_1``, ... and the constant of left minus right side."""
    left, *right = [ast.parse(side.strip(), mode="eval").body for side in text.split("=")]
    if len(right) > 1:
        raise ValueError("A constraint has one equals sign.")
    with np.errstate(all="ignore"):
        form = _linear_form(left, n_names) - sum(_linear_form(side, n_names) for side in right)
    if not np.isfinite(form).all():
        raise ValueError("A number is infinite.")
    return form


def _linear_form(node: ast.expr, n_names: int) -> NDArray[np.float64]:
    """Return the factors of the coefficients in an expression, and its constant."""
    total = np.zeros(n_names + 1)
    # Long sums nest to the left: a loop needs no depth of recursion.
    while isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
        sign = 1.0 if isinstance(node.op, ast.Add) else -1.0
        total += sign * _linear_form(node.right, n_names)
        node = node.left
    match node:
        case ast.Constant(value=int() | float()):
            total[-1] += node.value
        case ast.Name():
            total[int(node.id[1:])] += 1.0
        case ast.UnaryOp(op=ast.UAdd() | ast.USub()):
            sign = 1.0 if isinstance(node.op, ast.UAdd) else -1.0
            total += sign * _linear_form(node.operand, n_names)
        case ast.BinOp(op=ast.Mult() | ast.Div()):
            left, right = _linear_form(node.left, n_names), _linear_form(node.right, n_names)
            if isinstance(node.op, ast.Mult) and not left[:-1].any():
                left, right = right, left
            if right[:-1].any():
                raise ValueError("Coefficients are multiplied or divided by numbers only.")
            total += left * right[-1] if isinstance(node.op, ast.Mult) else left / right[-1]
        case _:
            raise ValueError("This is not a sum.")
    return total
