"""What the distributions hold."""

import re
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

_ELSEWHERE = re.compile(r"https?://|mailto:|#")
_JUNK = re.compile(r"(^|/)(__pycache__|\.[a-z]+_cache|_build|output)(/|$)|\.(pyc|so|h5ad)$|~$")


def check_wheel(wheel: Path, package: Path) -> None:
    """Check that a wheel holds the package, its licence, and nothing else.

    Raises
    ------
    ValueError
        If a file is missing, not expected or not the one in the tree, or if the page is wrong.
    """
    with zipfile.ZipFile(wheel) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    info = "-".join(wheel.name.split("-")[:2]) + ".dist-info"
    about = [f"{info}/{name}" for name in ("METADATA", "RECORD", "WHEEL", "licenses/LICENSE")]
    files = [*package.rglob("*.py"), package / "py.typed"]
    expected = {
        **{path.relative_to(package.parent).as_posix(): path for path in files},
        f"{info}/licenses/LICENSE": package.parent / "LICENSE",
    }
    if differing := held.keys() ^ {*expected, *about}:
        raise ValueError(f"{wheel.name} lacks, or should not hold: {sorted(differing)}")
    if stale := [name for name, path in expected.items() if held[name] != path.read_bytes()]:
        raise ValueError(f"{wheel.name} holds another {stale[0]} than the tree.")
    check_page(held[f"{info}/METADATA"].decode())


def check_page(metadata: str) -> None:
    """Check that a registry shows the README, with links that lead somewhere.

    Raises
    ------
    ValueError
        If the page is another one, or a link leads nowhere.
    """
    page = str(Parser().parsestr(metadata).get_payload())
    links = re.findall(r"\]\(([^)\s]*)", page)
    if dead := [link for link in links if not _ELSEWHERE.match(link)]:
        raise ValueError(f"On the package's page these links lead nowhere: {dead}")
    if "\n## " not in page:
        raise ValueError("The package's page is not the README.")


def check_sdist(sdist: Path) -> None:
    """Check that a source distribution has no files that a tool left behind.

    A run of its tests shows that no file is missing.

    Raises
    ------
    ValueError
        If there are such files.
    """
    with tarfile.open(sdist) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    if junk := [name for name in names if _JUNK.search(name)]:
        raise ValueError(f"{sdist.name} should not hold {junk}")
