"""The oldest versions that the package says it works with, read from ``pyproject.toml``."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

_REQUIREMENT = re.compile(r"(?P<name>[\w-]+)(\[(?P<extras>[\w,-]+)\])?(>=(?P<oldest>[\d.]+))?")


def oldest(project: Mapping[str, Any], extras: Iterable[str] = ()) -> dict[str, str]:
    """Return the oldest version of each direct dependency, and of those of some extras.

    Parameters
    ----------
    project : Mapping
        The table ``project`` of ``pyproject.toml``.
    extras : iterable of str

    Returns
    -------
    dict of str to str

    Raises
    ------
    ValueError
        If a requirement names no oldest version, or is written in another way than ``name>=1.2``.
    """
    optional = project["optional-dependencies"]
    waiting = [*project["dependencies"], *(line for extra in extras for line in optional[extra])]
    versions = {}
    while waiting:
        requirement = waiting.pop()
        found = _REQUIREMENT.fullmatch(requirement)
        if found and found["name"] == project["name"] and found["extras"]:
            waiting += [line for extra in found["extras"].split(",") for line in optional[extra]]
        elif found and found["oldest"] and not found["extras"]:
            versions[found["name"]] = found["oldest"]
        else:
            raise ValueError(f"{requirement!r} in pyproject.toml is not of the form 'name>=1.2'.")
    return versions
