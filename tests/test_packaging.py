"""What the package is made up of: what it needs, what it imports and when, its versions."""

import ast
import importlib.util
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml

import sc_glm

ROOT = Path(__file__).parents[1]
PACKAGE = Path(sc_glm.__file__).parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
USES = ROOT / ".ci" / "packaging" / "uses"
EXTRAS = sorted(path.stem.removeprefix("with_") for path in USES.glob("with_*.py"))


def script(name):
    path = ROOT / ".ci" / "packaging" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"packaging_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(lines):
    return {canonical(re.match(r"[\w.-]+", line)[0]) for line in lines}


NEEDED = declared(PROJECT["dependencies"])
OF_EXTRAS = declared(line for extra in EXTRAS for line in PROJECT["optional-dependencies"][extra])


def distributions(nodes):
    """Return which distributions the import statements among some nodes need, but the package."""
    modules = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add(node.module)
    tops = {module.split(".")[0] for module in modules} - sys.stdlib_module_names - {"sc_glm"}
    of_module = packages_distributions()
    return {canonical(name) for top in tops for name in of_module[top]}


def test_all_that_is_needed_is_declared_and_the_reverse():
    trees = [ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")]
    when_imported = distributions(node for tree in trees for node in tree.body)
    ever = distributions(node for tree in trees for node in ast.walk(tree))
    assert when_imported == NEEDED - {"h5py"}  # which only files need
    assert "h5py" in ever
    assert "matplotlib" in ever
    assert ever <= NEEDED | OF_EXTRAS


def test_importing_the_package_imports_nothing_that_it_may_not_need():
    late = [
        "anndata",
        "dask",
        "distributed",
        "h5py",
        "IPython",
        "matplotlib",
        "pooch",
        "pytest",
        "statsmodels",
        "torch._dynamo",
        "torch._inductor",
        "tqdm.auto",
        "tqdm.notebook",
        "zarr",
    ]
    assert importlib.util.find_spec("torch._dynamo")  # the names are those of modules
    code = f"import sys, sc_glm; print(*(name for name in {late} if name in sys.modules))"
    done = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []


def test_public_modules_are_there_without_an_import_of_their_own():
    code = """
import sys, sc_glm
assert "sc_glm.adata" not in sys.modules and "adata" in dir(sc_glm)
print(sc_glm.adata.__name__, sc_glm.metrics.__name__)
"""
    done = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["sc_glm.adata", "sc_glm.metrics"]


def test_public_names_are_those_of_the_api_reference():
    page = (ROOT / "doc" / "api.rst").read_text()
    entries = re.findall(r"(?m)^   ([A-Za-z][\w.]*)$", page)
    assert {entry.split(".")[0] for entry in entries} == set(sc_glm.__all__)
    assert set(dir(sc_glm)) == {*sc_glm.__all__, "__version__"}


def test_a_name_that_is_not_public_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'sc_glm' has no attribute 'adatta'"):
        sc_glm.adatta  # noqa: B018


def test_oldest_versions_are_read_from_the_projects_table():
    oldest = script("oldest").oldest
    optional = {"a": ["one>=1.2"], "b": ["p[a]", "two-three>=2024.8"], "c": ["four"], "d": ["x==1"]}
    project = {"name": "p", "dependencies": ["zero>=0.1"], "optional-dependencies": optional}
    assert oldest(project) == {"zero": "0.1"}
    assert oldest(project, ["b"]) == {"zero": "0.1", "one": "1.2", "two-three": "2024.8"}
    for extra, line in (("c", "four"), ("d", "x==1")):
        with pytest.raises(ValueError, match=f"'{line}' in pyproject.toml"):
            oldest(project, [extra])


def test_every_dependency_of_users_and_tests_has_an_oldest_version():
    versions = script("oldest").oldest(PROJECT, ["test"])
    assert {canonical(name) for name in versions} >= NEEDED | OF_EXTRAS


def test_the_python_of_this_run_is_one_that_the_package_says_it_runs_on():
    running = "{}.{}".format(*sys.version_info)
    assert f"Programming Language :: Python :: {running}" in PROJECT["classifiers"]


def test_each_extra_is_for_developers_or_is_tried():
    developers = {"benchmark", "browser", "dev", "docs", "lint", "test"}
    assert set(PROJECT["optional-dependencies"]) - developers == set(EXTRAS)


def test_the_page_of_the_package_has_no_link_that_leads_nowhere():
    check = script("contents").check_page
    check("Name: p\n\n# p\n\n[more](https://example.org)\n\n## Part\n")
    for dead in ("[more](doc/more.rst)", "![a picture](doc/a.png)"):
        with pytest.raises(
            ValueError, match=re.escape(f"lead nowhere: ['{dead.partition('(')[2][:-1]}")
        ):
            check(f"Name: p\n\n# p\n\n{dead}\n\n## Part\n")


def test_the_citation_names_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == sc_glm.__version__
    assert citation["license"] == PROJECT["license"]
    assert citation.keys() >= {"cff-version", "message", "title", "authors"}
