"""Parsing of formulas in formulaic's grammar, with checks of expressions and limits of size."""

from __future__ import annotations

import contextlib
import math
import re
from typing import TYPE_CHECKING, NamedTuple

from formulaic import Formula, SimpleFormula
from formulaic.parser import DefaultFormulaParser
from formulaic.parser.algos.tokenize import tokenize
from formulaic.parser.types import ASTNode, Factor, Term, Token
from formulaic.utils.code import format_expr

from sc_glm.formula.covariates import missing_column_message
from sc_glm.formula.expression_checks import check_expression
from sc_glm.formula.rewriting import ALIAS_PREFIX, alias_quoted_names, restore_quoted_names

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sc_glm.formula.covariates import Columns

__all__ = [
    "columns_as_terms",
    "columns_in_formula",
    "parse_formula",
    "parse_offset",
    "plain_message",
]

# Terms of a formula that is multiplied out, as in `(a + b)**2`, and factors of one term. No design
# that can be fitted needs more. Beyond them, formulaic takes hours and much memory.
MAX_TERMS = 10_000
MAX_ORDER = 8


def plain_message(error: Exception) -> str:
    """Return the message of an error, without formulaic's colours for the terminal."""
    return re.sub(r"\x1b\[[\d;]*m|[⧛⧚]", "", str(error))


def parse_formula(text: str, columns: Columns, where: str) -> SimpleFormula:
    """Parse a one-sided formula, in which ``.`` becomes the columns.

    Parameters
    ----------
    text : str
        The formula.
    columns : Columns
        Names and kinds of the available columns.
    where : str
        Part and formula, with which messages begin.

    Returns
    -------
    SimpleFormula
        Its terms, with names in backquotes as the user wrote them.

    Raises
    ------
    ValueError
        If the formula does not parse, is too large, names an unknown column, or holds an operator
        or an expression that is not allowed.
    """
    tokens = _tokens(text, where)
    _check_operators(tokens, where)
    # These checks come first: formulaic's parser runs parts of expressions on the left of a `~`.
    for token in tokens:
        if token.kind is Token.Kind.PYTHON:
            _columns_in_expression(token.token, columns, where)
    _check_unambiguous(tokens, columns, where)
    code = _with_aliases(text, tokens)
    spaced = [n for n in columns.names if " " in n and n in text and f"`{n}`" not in text]
    hint = f". Put names with spaces in backquotes: `{spaced[0]}`." if spaced else ""
    with _parsing(where, hint):
        tree = DefaultFormulaParser().get_ast(code)
    _check_size(tree, len(columns.names), where)
    with _parsing(where):
        formula = Formula(code, _context={"__formulaic_variables_available__": columns.names})
    if not isinstance(formula, SimpleFormula):
        raise ValueError(  # noqa: TRY004
            f"{where}: a formula has one side, as in '~ a + b'. The counts are the y of fit, and "
            "are not named in a formula."
        )
    # formulaic does not look up the names that a formula takes away.
    for token in tokens:
        if token.kind is Token.Kind.NAME and token.token not in columns.names:
            raise ValueError(f"{where}: {missing_column_message(token.token, columns.names)}")
    return _without_aliases(formula)


def parse_offset(text: str, columns: Columns, where: str) -> SimpleFormula:
    """Parse an offset: a single name, call or expression in braces.

    In a formula, ``+`` adds a column and ``-`` takes one away, so that ``np.log(a) - np.log(b)``
    would become ``np.log(a)``. Therefore, arithmetic outside braces is refused. Parameters,
    result and errors are those of `parse_formula`.
    """
    expression = re.sub(r"^\s*~?\s*(0\s*\+)?", "", text)
    tokens = _tokens(expression, where)
    if len(tokens) != 1 or tokens[0].kind not in (Token.Kind.NAME, Token.Kind.PYTHON):
        raise ValueError(
            f"{where}: an offset is one numeric expression of the columns, such as "
            "'np.log(size_factor)'. Write arithmetic in braces or I(...), as in "
            "'{np.log(a) + np.log(b)}'. A constant number belongs in the intercept."
        )
    return parse_formula(f"0 + {expression}", columns, where)


def columns_in_formula(formula: SimpleFormula, columns: Columns, where: str) -> list[str]:
    """Return the columns that a formula reads, in the order of `columns`.

    formulaic's ``required_variables`` cuts names at dots, and leaves out columns with the name of
    a transform. Expressions are checked again here, since formulaic has rewritten them.
    """
    read: set[str] = set()
    for factor in {factor for term in formula for factor in term.factors}:
        if factor.eval_method is Factor.EvalMethod.LOOKUP:
            read.add(factor.expr)
        elif factor.eval_method is Factor.EvalMethod.PYTHON:
            read |= _columns_in_expression(factor.expr, columns, where)
    return [name for name in columns.names if name in read]


def columns_as_terms(formula: SimpleFormula) -> set[str]:
    """Return the columns that are factors of terms by themselves, and not within expressions."""
    return {
        factor.expr
        for term in formula
        for factor in term.factors
        if factor.eval_method is Factor.EvalMethod.LOOKUP
    }


@contextlib.contextmanager
def _parsing(where: str, hint: str = "") -> Iterator[None]:
    """Raise what formulaic's parser raises as one message, with the formula and a hint."""
    try:
        yield
    except Exception as error:
        reason = " ".join(restore_quoted_names(plain_message(error)).split())
        raise ValueError(f"{where}: the formula does not parse. {reason}{hint}") from error


def _tokens(text: str, where: str) -> list[Token]:
    with _parsing(where):
        return list(tokenize(text))


def _check_operators(tokens: Sequence[Token], where: str) -> None:
    """Refuse an empty formula, random effects, and comparisons between terms."""
    operators = {token.token for token in tokens if token.kind is Token.Kind.OPERATOR}
    if all(token.kind is Token.Kind.OPERATOR for token in tokens):
        raise ValueError(f"{where}: the formula is empty. '~ 1' is an intercept alone.")
    if any("|" in operator for operator in operators):
        raise ValueError(
            f"{where}: a formula cannot have '|'. Each part of the model has its own formula, and "
            "no part has random effects. For cells that are correlated within donors, use "
            "kind='cluster' and groups in sc_glm.inference."
        )
    comparisons = sorted(operator for operator in operators if set(operator) <= set("<>=!&"))
    if comparisons:
        raise ValueError(
            f"{where}: {comparisons[0]!r} compares terms of the formula, which is not allowed. "
            "Write a condition in I(), such as I(x > 0)."
        )


def _columns_in_expression(expression: str, columns: Columns, where: str) -> set[str]:
    """Check a Python expression, with names in backquotes, and return the columns it reads."""
    if "``" in expression or ALIAS_PREFIX in expression:
        raise ValueError(
            f"{where}: {expression!r} has an empty name, or one with the reserved {ALIAS_PREFIX!r}."
        )
    code, aliases = alias_quoted_names(expression)
    return check_expression(code, aliases, columns, where)


def _check_unambiguous(tokens: Sequence[Token], columns: Columns, where: str) -> None:
    """Refuse columns that formulaic takes for the intercept, a number or an expression.

    formulaic distinguishes the factors of a formula by their text only.
    """
    texts = {token.token for token in tokens if token.kind is Token.Kind.NAME}
    if any(token.token == "." for token in tokens):  # noqa: S105
        texts.update(columns.names)
    others = {"1": "the intercept"}
    for token in tokens:
        if token.kind is Token.Kind.VALUE and token.token not in ("0", "1"):
            others[token.token] = "a number"
        elif token.kind is Token.Kind.PYTHON:
            code, _ = alias_quoted_names(token.token)
            others[restore_quoted_names(format_expr(code))] = "an expression"
    for name in columns.names:
        if name in texts and name in others:
            raise ValueError(
                f"{where}: a formula cannot distinguish the column {name!r} from {others[name]}. "
                f"Give it another name: X.rename(columns={{{name!r}: ...}})."
            )


def _with_aliases(text: str, tokens: Sequence[Token]) -> str:
    """Replace names in backquotes within expressions, which formulaic's parser cannot read."""
    pieces, end = [], 0
    for token in tokens:
        if token.kind is Token.Kind.PYTHON:
            start = text.index(token.token, end)
            pieces += [text[end:start], alias_quoted_names(token.token)[0]]
            end = start + len(token.token)
    return "".join([*pieces, text[end:]])


def _without_aliases(formula: SimpleFormula) -> SimpleFormula:
    terms = [
        Term(
            Factor(restore_quoted_names(factor.expr), eval_method=factor.eval_method)
            for factor in term.factors
        )
        for term in formula
    ]
    return SimpleFormula(terms, _ordering="none")


class _Size(NamedTuple):
    """Upper bounds on the size of a piece of a formula once it is multiplied out."""

    n_terms: int
    """Number of terms, of which some may be equal."""
    order: int
    """Number of factors of the longest term."""
    n_leaves: int
    """Number of factors as they are written, which the order cannot exceed."""


def _check_size(tree: ASTNode | Token | None, n_columns: int, where: str) -> None:
    """Refuse a formula with too many terms, or with a term of too many factors."""
    nodes = [tree]
    for node in nodes:  # the list grows, so that parents come before their arguments
        if isinstance(node, ASTNode):
            nodes.extend(node.args)
    sizes: dict[int, _Size] = {}
    for node in reversed(nodes):
        size = _Size(1, 1, 1)
        if isinstance(node, ASTNode):
            size = _size(node, [sizes[id(argument)] for argument in node.args], n_columns, where)
        if size.n_terms > MAX_TERMS or size.order > MAX_ORDER:
            raise ValueError(
                f"{where}: multiplied out, the formula has more than {MAX_TERMS} terms, or a term "
                f"of more than {MAX_ORDER} factors."
            )
        sizes[id(node)] = size


def _size(node: ASTNode, arguments: list[_Size], n_columns: int, where: str) -> _Size:
    n_terms = [size.n_terms for size in arguments]
    orders = [size.order for size in arguments]
    n_leaves = sum(size.n_leaves for size in arguments)
    match node.operator.symbol:
        case ".":
            return _Size(n_columns, 1, n_columns)
        case ":":
            count, order = math.prod(n_terms), sum(orders)
        case "*":
            count, order = math.prod(n_terms) + sum(n_terms), sum(orders)
        case "/" | "in":
            count, order = sum(n_terms), n_leaves
        case "**" | "^":
            exponent = node.args[1]
            if not (isinstance(exponent, Token) and re.fullmatch(r"\d\d?", exponent.token)):
                raise ValueError(f"{where}: the power of terms must be a small whole number.")
            power = int(exponent.token)
            count, order = n_terms[0] ** power, orders[0] * power
        case _:
            count, order = sum(n_terms), max(orders)
    return _Size(count, min(order, n_leaves), n_leaves)
