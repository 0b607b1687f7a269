"""Rooms import in one direction, and each heavy dependency has its doors."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import sc_glm

PACKAGE = Path(sc_glm.__file__).parent
TESTS = Path(__file__).parent

# Floors of rooms, from the ground: a room imports rooms of lower floors only. A room is a package,
# or a module that stands alone.
FLOORS = [
    {"_contract"},
    {"_counts", "_likelihood", "formula"},
    {"_design", "distributions"},
    {"_solver", "datasets"},
    {"estimators"},
    {"inference", "metrics"},
    {"diagnostics", "moderation", "selection"},
    {"adata", "plots"},
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}

DOORS = {
    "formulaic": {"formula"},
    "h5py": {"_counts"},
    "anndata": {"adata", "datasets"},
    "matplotlib": {"plots"},
    "pooch": {"datasets"},
}
# Beside them each of these has one module that imports it.
ONE_MODULE = ("h5py", "matplotlib", "pooch")
TENSORS_ONLY = {"_likelihood"}
NO_TENSORS = {"_contract", "_counts", "_design", "formula"}


def modules():
    """Dotted names of all modules, below the package."""
    files = (path.relative_to(PACKAGE).with_suffix("") for path in PACKAGE.rglob("*.py"))
    return sorted(".".join(file.parts) for file in files)


MODULES = [module for module in modules() if module != "__init__"]


def room_of(module):
    return module.split(".")[0]


def tree_of(module):
    return ast.parse((PACKAGE / (module.replace(".", "/") + ".py")).read_text())


def imports(module):
    """Full names of all that a module imports, wherever in the file it does so."""
    names = set()
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def own_imports(module):
    """Modules of the package that a module imports, as dotted names below the package."""
    found = set()
    for name in imports(module):
        top, *rest = name.split(".")
        if top == "sc_glm":
            path = ".".join(rest)
            parent = ".".join(rest[:-1])
            known = (path, f"{path}.__init__", parent, f"{parent}.__init__", "__init__")
            found.add(next(name for name in known if name in modules()))
    return found


def outside(module):
    return {name.split(".")[0] for name in imports(module)}


def test_what_this_test_reads_is_there():
    assert own_imports("_likelihood.distinct_counts") == {"_likelihood.family", "_likelihood.tiles"}
    assert own_imports("inference.__init__") >= {"inference.summary"}
    assert "torch" in outside("_likelihood.family")


def test_every_room_has_its_floor():
    assert {room_of(module) for module in MODULES} == set(FLOOR)


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module):
    room = room_of(module)
    others = {room_of(name) for name in own_imports(module)} - {room}
    assert {other for other in others if FLOOR.get(other, len(FLOORS)) >= FLOOR[room]} == set()


def test_no_module_imports_itself_by_way_of_others():
    below = {module: own_imports(module) for module in MODULES}
    while below:
        ground = {module for module, names in below.items() if not names & set(below)}
        assert ground, f"a circle within {sorted(below)}"
        below = {module: names for module, names in below.items() if module not in ground}


def test_every_room_says_what_it_is_for():
    for room in FLOOR:
        module = f"{room}.__init__" if f"{room}.__init__" in MODULES else room
        text = ast.get_docstring(tree_of(module))
        assert "belong" in text, f"{room} does not say what may enter"
        assert len(text.splitlines()) <= 9, room


def test_tests_mirror_the_rooms():
    """A file of tests stands where its module does; those of several rooms stand beside them."""
    for test in TESTS.rglob("*/test_*.py"):
        if test.parent == TESTS:
            continue
        module = PACKAGE / test.relative_to(TESTS).with_name(test.name.removeprefix("test_"))
        assert module.is_file() or module.stem == module.parent.name, test


def test_formulas_and_regressors_meet_in_column_names_only():
    for room in ("_counts", "_design", "_likelihood", "_solver", "distributions", "estimators"):
        of_room = [module for module in MODULES if room_of(module) == room]
        assert [m for m in of_room if "formula" in map(room_of, own_imports(m))] == []


@pytest.mark.parametrize("dependency", DOORS)
def test_a_heavy_dependency_has_few_doors(dependency):
    users = {module for module in MODULES if dependency in outside(module)}
    assert {room_of(module) for module in users} == DOORS[dependency]
    if dependency in ONE_MODULE:
        assert len(users) == 1


def test_the_numerical_core_knows_tensors_only():
    foreign = {"numpy", "pandas", "scipy", "sklearn"}
    core = [module for module in MODULES if room_of(module) in TENSORS_ONLY]
    assert {module: outside(module) & foreign for module in core} == {m: set() for m in core}
    without = [module for module in MODULES if room_of(module) in NO_TENSORS]
    assert [module for module in without if "torch" in outside(module)] == []


def test_importing_the_package_is_quiet_and_light():
    heavy = {"anndata", "matplotlib", "statsmodels", "dask", "h5py", "pooch"}
    code = f"import sys, sc_glm.datasets, sc_glm.plots; print(*sorted({heavy} & set(sys.modules)))"
    done = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""
    assert done.stderr == ""


def test_public_names():
    assert sc_glm.__all__ == sorted(sc_glm.__all__)
    for name in sc_glm.__all__:
        assert getattr(sc_glm, name).__doc__
    assert {"FormulaTransformer", "NegBinRegressor", "ZINBRegressor", "make_pipeline"} <= set(
        sc_glm.__all__
    )


def test_the_package_is_typed():
    assert (PACKAGE / "py.typed").is_file()
