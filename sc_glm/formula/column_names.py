"""Names of columns, taken apart: the term and the level of ``cell_type[T.B]``."""

from __future__ import annotations

import re

__all__ = ["term_and_level"]

# A name may hold brackets and colons within backquotes, parentheses and brackets.
_FACTOR = re.compile(r"(?:`[^`]*`|\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)|\[[^\]]*\]|[^:])+")
_LEVEL = re.compile(r"(?P<factor>.*?)\[(?P<contrast>[A-Z]\.)?(?P<level>.*)\]", re.DOTALL)


def term_and_level(name: str) -> tuple[str, str]:
    """Return the term of a column of a design, and the level of its factor.

    Parameters
    ----------
    name : str
        Name of the column, as formulaic writes it.

    Returns
    -------
    term : str
    level : str
        The levels of several factors are joined by a colon. It is empty for numbers, and for the
        numbered columns of splines and polynomials.

    Examples
    --------
    >>> from sc_glm.formula.column_names import term_and_level
    >>> for name in ("cell_type[T.B]", "C(day)[2]:x", "bs(time, df=4)[1]", "a[T.u]:b[v]"):
    ...     print(term_and_level(name))
    ('cell_type', 'B')
    ('C(day):x', '2')
    ('bs(time, df=4)', '')
    ('a:b', 'u:v')
    """
    terms, levels = [], []
    for factor in _FACTOR.findall(name):
        found = _LEVEL.fullmatch(factor)
        if found is None:
            terms.append(factor)
            continue
        terms.append(found["factor"])
        is_call = found["factor"].endswith(")") and not found["factor"].startswith("C(")
        if found["contrast"] or not is_call:
            levels.append(found["level"])
    return ":".join(terms), ":".join(levels)
