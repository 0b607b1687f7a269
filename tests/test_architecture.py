"""Imports point one way, and each heavy dependency has its doors."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import sc_glm

PACKAGE = Path(sc_glm.__file__).parent
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py"))

# Each imports from those before it only. A new module belongs in one of these lists.
FOUNDATION = ["validation", "warned", "state", "callbacks"]
FORMULAS = ["covariates", "vocabulary", "rewriting", "expressions", "splines", "formula"]
TENSORS = [  # modules that know nothing else
    "special",
    "rowwise",
    "family",
    "rises",
    "tiles",
    "steps",
    "contraction",
    "arrow",
    "objective",
    "fused",
    "grouped",
    "scores",
    "solver",
]
CORE = [
    *TENSORS,
    "compression",
    "curves",
    "problem",
    "submodels",
    "starts",
    "search",
    "runaways",
    "design",
    "counts",
    "status",
    "block",
    "levels",
    "checkpoint",
    "fitting",
    "information",
    "tails",
    "expected",
    "telling",
    "variates",
    "distributions",
    "sampling",
    "notebook",
    "base",
    "regressors",
    "pipeline",
]
ON_TOP = [
    "fitted",
    "uncertainty",
    "p_values",
    "nesting",
    "profile",
    "size_profile",
    "dispersion_trend",
    "moderation",
    "metrics",
    "selection",
    "inference_summary",
    "inference",
    "diagnostics",
    "datasets_presets",
    "datasets_simulated",
    "datasets_fetched",
    "datasets",
    "ondisk",
    "adata",
    "plots_axes",
    "plots_rootogram",
    "plots_quantiles",
    "plots_moments",
    "plots_summaries",
    "plots_covariate",
    "plots_volcano",
    "plots",
]
ORDER = [*FOUNDATION, *FORMULAS, *CORE, *ON_TOP, "__init__"]

DOORS = {
    "formulaic": ("formula",),
    "h5py": ("ondisk",),
    "anndata": ("adata", "datasets_fetched"),
    "matplotlib": ("plots_axes",),
    "pooch": ("datasets_fetched",),
}
NO_TENSORS = {"validation", "state", "formula", "compression", "design", "counts", "status"}


def imports(module):
    """Full names of all that a module imports, wherever in the file it does so."""
    tree = ast.parse((PACKAGE / f"{module}.py").read_text())
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def own_imports(module):
    """Modules of the package that a module imports."""
    found = set()
    for name in imports(module):
        top, *rest = name.split(".")
        if top == "sc_glm":
            # `from sc_glm import X` comes by way of __init__, unless X is a module.
            found.add(rest[0] if rest and rest[0] in MODULES else "__init__")
    return found


def outside(module):
    return {name.split(".")[0] for name in imports(module)}


def test_what_this_test_reads_is_there():
    assert {"__init__", *FOUNDATION, *CORE} <= set(MODULES)
    assert own_imports("steps") == {"family", "tiles"}
    assert "torch" in outside("family")


def test_every_module_has_its_place():
    assert set(MODULES) <= set(ORDER)
    assert not [path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name[0] != "_"]


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_one_way(module):
    before = set(ORDER[: ORDER.index(module)])
    assert own_imports(module) <= before


def test_what_stands_on_its_own():
    """Beside the order: these know nothing of the others but the foundation."""
    assert own_imports("formula") <= {*FOUNDATION, *FORMULAS}
    for module in (
        "covariates",
        "vocabulary",
        "splines",
        "special",
        "compression",
        "design",
        "counts",
    ):
        assert own_imports(module) <= set(FOUNDATION)
    for module in FOUNDATION:
        assert own_imports(module) == set()


def test_formulas_and_regressors_meet_in_column_names_only():
    assert [module for module in CORE if own_imports(module) & set(FORMULAS)] == []


@pytest.mark.parametrize("dependency", DOORS)
def test_a_heavy_dependency_has_few_doors(dependency):
    users = {module for module in MODULES if dependency in outside(module)}
    assert users <= set(DOORS[dependency])


def test_the_numerical_core_knows_tensors_only():
    foreign = {"numpy", "pandas", "scipy", "sklearn"}
    assert {m: outside(m) & foreign for m in TENSORS} == {m: set() for m in TENSORS}
    assert [module for module in NO_TENSORS if "torch" in outside(module)] == []


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
