"""Sphinx configuration; ``make docs`` builds the pages with warnings as errors."""

import os
import re
from importlib.metadata import version as installed_version
from pathlib import Path

from sc_glm import plots

project = "sc_glm"
author = "the sc_glm developers"
project_copyright = "the sc_glm developers"
release = version = installed_version("sc_glm")

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "myst_parser",
    "numpydoc",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "gallery/sg_execution_times.rst", "sg_execution_times.rst"]
templates_path = ["_templates"]

# Estimators inherit methods from private bases, which belong on their page, and from scikit-learn,
# which documents its own (see ``skip_scikit_learn``).
autodoc_default_options = {"members": True, "inherited-members": "object,tuple"}
autodoc_inherit_docstrings = False
autodoc_typehints = "none"  # types stand in the docstrings
numpydoc_show_class_members = False
# Parameters that are documented exist (PR02), in the signature's order (PR03).
numpydoc_validation_checks = {"PR02", "PR03"}

# A display has a picture on its page, which has the name of its module.
autosummary_context = {
    "pictures": {
        name: f"/_static/plots/{getattr(plots, name).__module__.rsplit('.')[-1]}.png"
        for name in plots.__all__
        if name.endswith("Display")
    }
}

examples = Path(__file__).parents[1] / "examples"


def of_real_data():
    """Return the examples that need the real data sets."""
    return [path.name for path in examples.glob("plot_*.py") if "fetch_" in path.read_text()]


# Examples of real data are run where the data are, and shown without their results elsewhere.
left_out = [] if os.environ.get("SC_GLM_DATA") else of_real_data()
sphinx_gallery_conf = {
    "examples_dirs": str(examples),
    "gallery_dirs": "gallery",
    "filename_pattern": "|".join(
        re.escape(path.name) for path in examples.glob("plot_*.py") if path.name not in left_out
    ),
    "ignore_pattern": r"^(?!plot_)",  # other scripts are no pages
    "within_subsection_order": "FileNameSortKey",
    "doc_module": ("sc_glm",),
    "reference_url": {"sc_glm": None},
    "backreferences_dir": "api/backreferences",
    "image_scrapers": ("matplotlib",),
    "image_srcset": ["2x"],
    "min_reported_time": 5,
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
    "copyfile_regex": "",
}
# Code is copied without its prompts and its results.
copybutton_exclude = ".linenos, .gp, .go"

html_theme = "pydata_sphinx_theme"
html_title = "sc_glm"
html_theme_options = {"secondary_sidebar_items": ["page-toc"], "header_links_before_dropdown": 6}
html_sidebars = {"index": []}
html_static_path = ["_static"]
html_css_files = ["site.css"]
toc_object_entries_show_parents = "hide"
html_copy_source = False
html_show_sourcelink = False


def skip_scikit_learn(app, what, name, obj, skip, options):  # noqa: ARG001, PLR0917
    """Leave out what scikit-learn defines, ``set_fit_request`` and its kin among them."""
    module = getattr(getattr(obj, "fget", obj), "__module__", None) or ""
    return skip or module.split(".")[0] == "sklearn"


WIDE = ("gallery/", "benchmarks", "calibration", "moderation")  # lines or tables are wide


def give_tables_the_width(app, page, template, context, doctree):  # noqa: ARG001
    """Leave the table of contents out beside examples and wide tables."""
    if page.startswith(WIDE):
        context["meta"] = {**(context["meta"] or {}), "html_theme.sidebar_secondary.remove": "true"}


def setup(app):
    app.connect("html-page-context", give_tables_the_width)
    app.connect("autodoc-skip-member", skip_scikit_learn)
