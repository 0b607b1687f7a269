"""Entries of docstrings that several functions share, each written once."""

import re
import textwrap
from collections.abc import Callable, Mapping
from typing import TypeVar

__all__ = ["documented"]

_Documented = TypeVar("_Documented", bound=Callable[..., object])
_PLACE = re.compile(r"^( *)\{(\w+)\}$", re.MULTILINE)  # a name in braces, alone on its line


def documented(entries: Mapping[str, str]) -> Callable[[_Documented], _Documented]:
    r"""Return a decorator that fills shared entries into a docstring, which then reads alone.

    A line that holds only a name in braces becomes the entry of that name, with the indentation
    of the line.

    Parameters
    ----------
    entries : mapping of str to str
        Each entry as it is written in a docstring. An entry of several lines begins with a line
        break, so that all its lines have the same indentation.

    Returns
    -------
    callable
        A decorator of functions and classes.

    Raises
    ------
    KeyError
        If a docstring names an entry that does not exist.

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
