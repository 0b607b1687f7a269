"""Entries of docstrings that several functions share, each written once."""

import re
import textwrap
from collections.abc import Callable, Mapping
from typing import TypeVar

__all__ = ["documented"]

_Documented = TypeVar("_Documented", bound=Callable[..., object])
_PLACE = re.compile(r"^( *)\{(\w+)\}$", re.MULTILINE)  # a name in braces, alone on its line


def documented(entries: Mapping[str, str]) -> Callable[[_Documented], _Documented]:
    r"""Fill shared entries into a docstring, so that it reads on its own.

    A line that holds a name in braces and nothing else becomes the entry of that name, with the
    indentation of the line.

    Parameters
    ----------
    entries : mapping of str to str
        Each entry as it stands in a docstring. If it has several lines, a line break comes before
        the first of them, so that all are indented alike.

    Returns
    -------
    callable
        A decorator of functions and classes.

    Raises
    ------
    KeyError
        If a docstring names an entry that there is not.

    Examples
    --------
    >>> from sc_glm._contract.docstrings import documented
    >>> @documented({"n_cells": "n_cells : int", "seed": "seed : int, default=0"})
    ... def simulate(n_cells, seed=0):
    ...     '''Simulate cells.
    ...
    ...     {n_cells}
    ...     {seed}
    ...     '''
    >>> print(simulate.__doc__)
    Simulate cells.
    <BLANKLINE>
        n_cells : int
        seed : int, default=0
    <BLANKLINE>
    """

    def fill(place: re.Match[str]) -> str:
        indent, name = place.groups()
        lines = textwrap.dedent(entries[name]).strip().splitlines()
        return "\n".join(f"{indent}{line}" if line else "" for line in lines)

    def decorate(documented: _Documented) -> _Documented:
        if documented.__doc__:  # Python leaves docstrings out under -OO
            documented.__doc__ = _PLACE.sub(fill, documented.__doc__)
        return documented

    return decorate
