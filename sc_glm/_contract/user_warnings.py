"""Warnings that point at the user's line, through the layers of other packages."""

import inspect
import os
import warnings
from importlib.util import find_spec
from pathlib import Path

# Packages whose functions may be between the user's line and ours: pipelines, searches, workers.
_INTERNAL_PACKAGES = ("sc_glm", "sklearn", "joblib")


def _internal_folders() -> tuple[str, ...]:
    specs = [find_spec(name) for name in _INTERNAL_PACKAGES]
    return tuple(f"{Path(spec.origin).parent}{os.sep}" for spec in specs if spec and spec.origin)


_INTERNAL_FOLDERS = _internal_folders()


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn with the innermost line outside this package, scikit-learn and joblib.

    Parameters
    ----------
    message : str
        Text of the warning.
    category : type of Warning, default=UserWarning
        Its class.

    Notes
    -----
    Python 3.12 has ``skip_file_prefixes`` for this. A worker process has no line of the user: its
    warnings point at the outermost line.
    """
    frame = inspect.currentframe()
    if frame is None:  # an implementation of Python without frames
        warnings.warn(message, category, stacklevel=2)
        return
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_INTERNAL_FOLDERS):
        frame = frame.f_back
    warnings.warn_explicit(
        message,
        category,
        filename=frame.f_code.co_filename,
        lineno=frame.f_lineno,
        module=frame.f_globals.get("__name__"),
        registry=frame.f_globals.setdefault("__warningregistry__", {}),
    )
