import importlib
import inspect
import pkgutil
import re

import pytest

import sc_glm
from sc_glm._contract.docstrings import documented

ENTRIES = {
    "counts": """
        counts : ndarray
            Counts of cells.

            They are whole numbers.
    """,
    "seed": "seed : int",
}


def test_an_entry_has_the_indentation_of_its_place():
    @documented(ENTRIES)
    def function():
        """Do something.

        Parameters
        ----------
        {counts}
        {seed}
        """

    assert inspect.getdoc(function).splitlines()[4:] == [
        "counts : ndarray",
        "    Counts of cells.",
        "",
        "    They are whole numbers.",
        "seed : int",
    ]


def test_braces_within_a_line_stay():
    @documented(ENTRIES)
    def function():
        """Return ``{seed}``, one of {"a", "b"}."""

    assert function.__doc__ == 'Return ``{seed}``, one of {"a", "b"}.'


def test_an_unknown_entry_is_an_error_where_it_is_written():
    with pytest.raises(KeyError, match="sead"):

        @documented(ENTRIES)
        def function():
            """Do something.

            {sead}
            """


def test_a_class_and_what_has_no_docstring_are_taken():
    @documented(ENTRIES)
    class Model:
        """A model.

        {seed}
        """

    def bare():
        pass

    assert inspect.getdoc(Model) == "A model.\n\nseed : int"
    assert documented(ENTRIES)(bare).__doc__ is None


def public():
    """All public functions, classes and methods, by name."""
    for name in sc_glm.__all__:
        found = getattr(sc_glm, name)
        names = found.__all__ if inspect.ismodule(found) else [None]
        for inner in names:
            thing = found if inner is None else getattr(found, inner)
            yield name if inner is None else f"{name}.{inner}", thing
            if inspect.isclass(thing):
                for method, function in inspect.getmembers(thing, inspect.isfunction):
                    if not method.startswith("_") and function.__module__.startswith("sc_glm"):
                        yield f"{name}.{inner}.{method}", function


@pytest.mark.parametrize(("name", "thing"), list(public()))
def test_a_public_docstring_reads_on_its_own(name, thing):
    text = inspect.getdoc(thing)
    assert not re.search(r"(?m)^\s*\{\w+\}$", text), f"{name} has an entry that is not filled in"
    assert not re.search(r"(?m)^\s+As (for|of|in|those of)? ?:\w+:`", text), (
        f"{name} sends its reader to another page for what a parameter is"
    )


def documented_parameters(text):
    """Names in the section of parameters, in order."""
    _, _, rest = text.partition("\nParameters\n----------\n")
    section = re.split(r"(?m)^(?=[A-Z][\w ]+\n-+$)", rest)[0]
    names = re.findall(r"(?m)^([*\w][*\w, ]*?)(?: : .*)?$", section)
    return [name.strip(" *") for entry in names for name in entry.split(",")]


@pytest.mark.parametrize(("name", "thing"), list(public()))
def test_parameters_are_those_of_the_signature(name, thing):
    parameters = [p for p in inspect.signature(thing).parameters if p != "self"]
    documented = documented_parameters(inspect.getdoc(thing))
    if inspect.isfunction(thing) or documented:  # results list their attributes instead
        assert documented == parameters, name


def test_modules_are_documented():
    for module in pkgutil.walk_packages(sc_glm.__path__, "sc_glm."):
        assert importlib.import_module(module.name).__doc__, module.name
