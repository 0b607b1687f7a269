"""Sphinx configuration; ``make docs`` builds the pages with warnings as errors."""

from importlib.metadata import version as installed_version

project = "sc_glm"
author = "the sc_glm developers"
project_copyright = "the sc_glm developers"
release = version = installed_version("sc_glm")

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
]
exclude_patterns = ["_build"]
templates_path = ["_templates"]

# Estimators inherit methods from private bases, which belong on their page, and from scikit-learn,
# which documents its own (see ``skip_scikit_learn``).
autodoc_default_options = {"members": True, "inherited-members": "object,tuple"}
autodoc_inherit_docstrings = False
autodoc_typehints = "none"  # types stand in the docstrings
numpydoc_show_class_members = False
# Parameters that are documented exist (PR02), in the signature's order (PR03).
numpydoc_validation_checks = {"PR02", "PR03"}

html_theme = "pydata_sphinx_theme"
html_title = "sc_glm"
html_theme_options = {"show_prev_next": False, "secondary_sidebar_items": ["page-toc"]}
html_sidebars = {"index": [], "model": []}
toc_object_entries_show_parents = "hide"
html_copy_source = False
html_show_sourcelink = False


def skip_scikit_learn(app, what, name, obj, skip, options):  # noqa: ARG001, PLR0917
    """Leave out what scikit-learn defines, ``set_fit_request`` and its kin among them."""
    module = getattr(getattr(obj, "fget", obj), "__module__", None) or ""
    return skip or module.split(".")[0] == "sklearn"


def setup(app):
    app.connect("autodoc-skip-member", skip_scikit_learn)
