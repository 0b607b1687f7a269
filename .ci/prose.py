"""Check that pages, docstrings and comments are in plain sentences.

Each rule names a phrase that stops a reader, and a plainer one. Long sentences are flaws, too.
Tables are left out. Of code and output on pages, the lines must be short enough to be seen whole.
The arguments are the files to check; without any, all are.
"""

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

MOST_WORDS = 35
# What fits beside both sidebars at 1280 pixels (doc/_static/site.css). Code of docstrings fits,
# because lines of modules have at most 100 characters, and docstrings are indented by four.
MOST_CHARACTERS = 96
PAGES = ["*.md", "doc/*.rst", "examples/README.rst", "doc/benchmarks/*.md"]
CODE = ["sc_glm/**/*.py", "examples/*.py"]

# What stops a reader, and what to write.
RULES = {
    r"\btell(s|ing)? of\b|\btold of\b": "say, show, inform about",
    r"\b(is|are|was|were|be|been) told\b": "is known, is distinguished, is reported",
    r"\bbut for\b": "except for",
    r"\bbut that\b": "except that",
    r"\bamid\b|\bwhence\b|\bthereof\b|\btherein\b|\bwherein\b": "in, from, of it",
    r"\bin (a word|words|one word)\b": "as a status, as a message",
    r"\bthat of the\b(?! (same|other))": "name the thing: the mean of the ...",
    r"\b(is|are) no (text|string|number|integer|name|column|flaw)\b": "is not a ...",
    r"\bat the most\b": "at most",
    r"\bas it were\b|\bso to speak\b|\bbe (it|that) as\b": "leave it out",
    r"\bdoes the same\b|\bdo the same\b": "name what it does",
    r"\bstands? on\b|\bstood on\b": "is based on, needs",
    r"\bin different manners\b|\bin this manner\b": "differently, in this way",
    r"\blikeness\b|\bafar\b|\bthe riddle\b": "approximation, far away",
    r"\bled on\b|\blead on\b": "are continued",
    r"\bat last\b": "finally",
    r"\bits like\b|\bthe like\b": "name the things",
    r"\bwant(s|ed)? (the|a|no)\b": "need",
    r"\b(as|so) much as\b(?= a)": "name the amount",
    r"\bas for\b": "say what it is here",
    r"\bof (them|these|those) none\b|\bnone of which\b": "begin with the subject",
    r"\bever so\b|\bnothing but\b|\bsave for\b": "only, except for",
    r"\bhas an end\b|\bhave an end\b|\bends? in (words|numbers)\b": "stops with a message",
}
RULES_COMPILED = [(re.compile(rule, re.IGNORECASE), plain) for rule, plain in RULES.items()]
ROLE = re.compile(r":[\w:-]+:`~?([^`<]*?)(?:\s*<[^>]*>)?`")
LITERAL = re.compile(r"``[^`]*``|`[^`]*`|\$[^$]*\$|https?://\S+")
SENTENCE_END = re.compile(r"(?<=[.!?:;])[)\"'”]*\s+(?=[A-Z`*(\"0-9])")


CODE_BLOCK = re.compile(r"\.\. (code-block|literalinclude|testcode)::")
PROSE_DIRECTIVE = re.compile(r"\.\. (note|warning|tip|important|grid|card|list-table|tab|dropdown)")
CODE_FOLLOWS = re.compile(r"^\.\. [\w-]+::|::$")
NO_PROSE = re.compile(
    r"\.\. |[|+#:]|!\[|([=~^\"-])\1{2,}"
)  # directives, tables, headings, pictures
ITEM = re.compile(r"[-*] |\d+\. ")


def plain(text: str) -> str:
    """Return text without markup; code becomes one word."""
    return LITERAL.sub("CODE", ROLE.sub(r"\1", text))


def without_code(lines: list[str]) -> list[str]:
    """Return lines with those of code, tables and headings emptied."""
    kept, fenced, code_indent = [], False, None
    for line in lines:
        bare, indent = line.strip(), len(line) - len(line.lstrip())
        if bare and code_indent is not None and indent <= code_indent:
            code_indent = None
        is_code = fenced or code_indent is not None
        if bare.startswith("```"):
            fenced, is_code = not fenced, True
        if CODE_FOLLOWS.search(bare) and not PROSE_DIRECTIVE.match(bare):
            code_indent = indent
        kept.append("" if is_code or NO_PROSE.match(bare) else line)
    return kept


def of_page(text: str) -> Iterator[tuple[int, str]]:
    """Yield the paragraphs of a page or a docstring, each with the number of its first line."""
    paragraph: list[str] = []
    margin = 0  # of the paragraph's lines; another one begins another paragraph
    in_example = False  # what follows `>>>` up to an empty line is code and its output
    for number, line in enumerate([*without_code(text.splitlines()), ""]):
        bare, indent, item = line.strip(), len(line) - len(line.lstrip()), ITEM.match(line.strip())
        in_example = bool(bare) and (in_example or bare.startswith(">>>"))
        if paragraph and (not bare or in_example or item or indent != margin):
            yield number - len(paragraph), " ".join(paragraph)
            paragraph = []
        if bare and not in_example:
            margin = indent if paragraph or not item else indent + item.end()
            paragraph.append(bare)


def paragraphs(path: Path) -> Iterator[tuple[int, str]]:
    """Yield all that is read as sentences in a file, with line numbers from one."""
    text = path.read_text()
    if path.suffix != ".py":
        for line, paragraph in of_page(text):
            yield line + 1, paragraph
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(
            node
        ):
            docstring = node.body[0].value  # type: ignore[attr-defined]
            for line, paragraph in of_page(docstring.value):
                yield docstring.lineno + line, paragraph
    comment, first, last = [], 0, -1
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT and not re.match(r"# (type|noqa|%%)", token.string):
            row = token.start[0]
            alone = token.line.lstrip().startswith("#")
            if comment and not (alone and row == last + 1):
                yield first, " ".join(comment)
                comment = []
            first = first if comment else row
            comment.append(token.string.lstrip("# "))
            last = row if alone else -1
    if comment:
        yield first, " ".join(comment)


def wide_code(text: str) -> Iterator[tuple[int, str]]:
    """Yield lines of a page's code and output that do not fit, with line numbers from one."""
    fenced = in_example = False
    block = margin = None  # indentations of a block's directive and of its code
    for number, line in enumerate(text.splitlines(), start=1):
        bare, indent = line.strip(), len(line) - len(line.lstrip())
        if bare and block is not None and indent <= block:
            block = margin = None
        in_example = bool(bare) and (in_example or bare.startswith(">>>"))
        fenced ^= bare.startswith("```")
        if block is not None and bare and margin is None:
            margin = indent
        if fenced or in_example or margin is not None:
            width = len(line) - (margin or 0)
            if width > MOST_CHARACTERS:
                yield number, f"a line of code of {width} characters: '{bare[:40]} ...'"
        if CODE_BLOCK.match(bare):
            block, margin = indent, None


def flaws(paragraph: str) -> Iterator[str]:
    """Say what stops a reader of a paragraph."""
    text = plain(paragraph)
    for rule, instead in RULES_COMPILED:
        if found := rule.search(text):
            yield f"'{found[0]}': write {instead}"
    for sentence in SENTENCE_END.split(text):
        if (n_words := len(re.findall(r"[^\W_]+", sentence))) > MOST_WORDS:
            yield f"a sentence of {n_words} words: '{' '.join(sentence.split()[:6])} ...'"


def main(names: list[str]) -> int:
    """Print the flaws of some files, or of all; return whether there are any."""
    root = Path(__file__).parents[1]
    files = [Path(name) for name in names] or sorted(
        {path for pattern in (*PAGES, *CODE) for path in root.glob(pattern)}
    )
    n_flaws = 0
    for path in files:
        found = [(line, flaw) for line, text in paragraphs(path) for flaw in flaws(text)]
        if path.suffix != ".py":
            found += wide_code(path.read_text())
        n_flaws += len(found)
        for line, flaw in found:
            print(f"{path}:{line}: {flaw}")
    if n_flaws:
        print(f"{n_flaws} flaws.")
    return min(n_flaws, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
