"""Build the distributions and use them as those do who install them, in scratch environments.

    python3 .ci/packaging          what they hold; the package alone; each extra of users alone,
                                   and together with the oldest versions of everything
    python3 .ci/packaging oldest   all tests with the oldest versions of ``pyproject.toml``
    python3 .ci/packaging newest   all tests with the newest releases of everything

Needs Python with venv, and a package registry. On Linux, each older torch brings CUDA along
(gigabytes): it is the one of ``constraints.txt`` in all environments, but with ``--oldest-torch``
and ``newest``. Environments have the version of Python that runs this.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
import venv
from collections.abc import Iterable
from pathlib import Path

from contents import check_sdist, check_wheel
from oldest import oldest

ROOT = Path(__file__).parents[2]
CONSTRAINTS = ROOT / "constraints.txt"
USES = Path(__file__).parent / "uses"
OF_EXTRAS = {path.stem.removeprefix("with_"): path for path in sorted(USES.glob("with_*.py"))}


def main() -> None:
    """Run what is asked for, and stop at the first failure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="?", choices=["oldest", "newest"])
    parser.add_argument("--oldest-torch", action="store_true", help="the oldest torch as well")
    options = parser.parse_args()
    os.environ.pop("PYTHONPATH", None)  # installed packages are to be found, no others
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # each is compiled once, not in each process
    os.environ |= {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    with tempfile.TemporaryDirectory() as scratch:
        workshop = Workshop(Path(scratch))
        wheel, sdist = workshop.build()
        if options.what is None:
            check_sdist(sdist)
            check_wheel(wheel, ROOT / "sc_glm")
            plain = workshop.try_plain(wheel)
            for extra in OF_EXTRAS:
                workshop.try_extra(wheel, extra, plain)
            workshop.try_oldest(wheel, torch_too=options.oldest_torch)
        elif options.what == "newest":
            workshop.test_newest(wheel, sdist)
        else:
            workshop.test_oldest(wheel, sdist, torch_too=options.oldest_torch)
        step("done")


def step(what: str) -> None:
    """Say what comes next."""
    print(f"-- {what} (at {time.monotonic() - _START:.0f} s)", flush=True)


_START = time.monotonic()


class Workshop:
    """A folder with virtual environments, and one pip that installs into all of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        step("build")
        self._tools = folder / "tools" / "bin" / "python"
        venv.create(folder / "tools", with_pip=True)
        self._install(self._tools, "-c", CONSTRAINTS, "build", "twine")

    def build(self) -> tuple[Path, Path]:
        """Return the paths of the wheel and the source distribution that it was built from."""
        dist = self._folder / "dist"
        constrained = {**os.environ, "PIP_CONSTRAINT": str(CONSTRAINTS)}
        self._run(self._tools, "-m", "build", "--outdir", dist, ROOT, env=constrained)
        (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
        self._run(self._tools, "-m", "twine", "check", "--strict", wheel, sdist)
        return wheel, sdist

    def try_plain(self, wheel: Path) -> Path:
        """Use the package where there is nothing but what it needs, and return its Python."""
        step("no extra")
        python = self._environment("plain")
        self._install(python, "-c", CONSTRAINTS, wheel)
        self._run(self._tools, "-m", "pip", "--python", python, "check")
        self._run(python, USES / "plain.py")
        return python

    def try_extra(self, wheel: Path, extra: str, plain: Path) -> None:
        """Use one extra, in an environment that adds it to the plain one."""
        step(f"extra {extra}")
        python = self._environment(extra)
        (site_packages(python) / "plain.pth").write_text(f"{site_packages(plain)}\n")
        self._install(python, "-c", CONSTRAINTS, f"{wheel}[{extra}]")
        self._run(python, OF_EXTRAS[extra])

    def try_oldest(self, wheel: Path, *, torch_too: bool) -> None:
        """Use all extras of users with the oldest versions."""
        python = self._with_oldest(wheel, OF_EXTRAS, torch_too=torch_too)
        for use in OF_EXTRAS.values():
            self._run(python, use)

    def test_oldest(self, wheel: Path, sdist: Path, *, torch_too: bool) -> None:
        """Run all tests of the source distribution with the oldest versions."""
        python = self._with_oldest(wheel, ["test"], torch_too=torch_too)
        # Of their time, they speak of what was to come in ours.
        ignored = ["-W", "ignore::DeprecationWarning", "-W", "ignore::PendingDeprecationWarning"]
        self._test(python, sdist, *ignored)

    def test_newest(self, wheel: Path, sdist: Path) -> None:
        """Run all tests of the source distribution with the newest releases."""
        step("newest versions")
        python = self._environment("newest")
        self._install(python, f"{wheel}[test]")
        self._run(self._tools, "-m", "pip", "--python", python, "list")
        self._test(python, sdist)

    def _test(self, python: Path, sdist: Path, *options: str) -> None:
        """Run the source distribution's tests, and its pages, on the package that is installed."""
        with tarfile.open(sdist) as archive:
            archive.extractall(self._folder, filter="data")
        source = self._folder / sdist.name.removesuffix(".tar.gz")
        shutil.rmtree(source / "sc_glm")  # the one to be tested is installed
        step("all tests")
        where = ["tests", *source.glob("doc/*.rst"), "--pyargs", "sc_glm"]
        # As a module, it lets the processes that tests start find the tests, too.
        self._run(python, "-m", "pytest", "-q", "-n", "2", *options, *where, cwd=source)

    def _with_oldest(self, wheel: Path, extras: Iterable[str], *, torch_too: bool) -> Path:
        """Return the Python of an environment with the oldest versions."""
        step("oldest versions")
        versions = oldest(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"], extras)
        if not torch_too:
            (versions["torch"],) = re.findall(r"(?m)^torch==(\S+)", CONSTRAINTS.read_text())
        python = self._environment("oldest")
        pins = [f"{name}=={version}" for name, version in versions.items()]
        # Older torch compiles with setuptools, and does not say so.
        self._install(python, "--only-binary", ":all:", wheel, "setuptools", *pins)
        return python

    def _environment(self, name: str) -> Path:
        venv.create(self._folder / name, with_pip=False)
        return self._folder / name / "bin" / "python"

    def _install(self, python: Path, *what: str | Path) -> None:
        pip = [self._tools, "-m", "pip", "--python", python, "install", "--quiet", "--no-compile"]
        self._run(*pip, *what)

    def _run(self, *command: str | Path, **options: object) -> None:
        options = {"cwd": self._folder, **options}
        subprocess.run([str(word) for word in command], check=True, **options)


def site_packages(python: Path) -> Path:
    """Return where an environment's packages are."""
    (found,) = python.parents[1].glob("lib/python*/site-packages")
    return found


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"failed: {' '.join(error.cmd)}")
