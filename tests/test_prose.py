"""The linter of prose finds what it is to find, and leaves code alone."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / ".ci" / "prose.py"
if not SCRIPT.is_file():
    pytest.skip("these are not the sources of a repository", allow_module_level=True)
SPEC = importlib.util.spec_from_file_location("prose", SCRIPT)
prose = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(prose)

LONG = " ".join(["word"] * (prose.MOST_WORDS + 1)) + "."


def found(tmp_path, name, text):
    """Line and first words of each flaw."""
    path = tmp_path / name
    path.write_text(text)
    return [
        (line, flaw.split(":")[0].split(" words")[0])
        for line, paragraph in prose.paragraphs(path)
        for flaw in prose.flaws(paragraph)
    ]


def test_phrases_and_long_sentences_of_a_page(tmp_path):
    page = f"Title\n=====\n\nAll genes but\nfor one.\n\n- {LONG}\n- Short.\n"
    length = f"a sentence of {prose.MOST_WORDS + 1}"
    assert found(tmp_path, "page.rst", page) == [(4, "'but for'"), (7, length)]


@pytest.mark.parametrize(
    "code",
    [
        "As here::\n\n   x = 'but for'\n\n   y = 'but for'\n\nText.\n",
        ">>> print('but for')\nbut for\n",
        ".. code-block:: python\n\n   'but for'\n",
        "```sh\necho but for\n```\n",
        "The name ``but for`` is code.\n",
        "| a | table, but for |\n",
    ],
)
def test_code_and_tables_are_left_out(tmp_path, code):
    assert found(tmp_path, "page.rst", code) == []


def test_text_after_code_and_in_notes_is_read(tmp_path):
    page = "So::\n\n   code\n\nBut for this.\n\n.. note::\n\n   But for that.\n"
    assert found(tmp_path, "page.rst", page) == [(5, "'But for'"), (9, "'But for'")]


def test_docstrings_and_comments_of_code(tmp_path):
    code = (
        '"""A module, but for one."""\n\n'
        "# All of it,\n# but for one line.\nX = 'but for'  # short\nY = 1  # but for this\n"
    )
    assert found(tmp_path, "code.py", code) == [
        (1, "'but for'"),
        (3, "'but for'"),
        (6, "'but for'"),
    ]


def test_parameters_are_sentences_of_their_own(tmp_path):
    half = " ".join(["word"] * (prose.MOST_WORDS - 5))
    code = f'"""Do it.\n\nx : int\n    {half}\ny : int\n    {half}\n"""\n'
    assert found(tmp_path, "code.py", code) == []


@pytest.mark.parametrize(
    ("before", "line"),
    [(">>> ", 1), (".. code-block:: python\n\n   ", 3), ("```\n", 2), (">>> f()\n", 2)],
)
def test_lines_of_code_that_do_not_fit(before, line):
    prompt = 4 * before.endswith("> ")
    fits = before + (prose.MOST_CHARACTERS - prompt) * "x"
    assert list(prose.wide_code(fits)) == []
    assert [number for number, _ in prose.wide_code(fits + "x")] == [line]


def test_long_lines_of_text_and_tables_are_no_code():
    page = f">>> f()\n1\n\n{LONG * 9}\n\n.. code-block:: sh\n\n   ls\n\n{LONG * 9}\n"
    assert list(prose.wide_code(page)) == []
