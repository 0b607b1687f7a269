"""Warnings that point at the user's line, whichever layers of other packages lie between."""

import inspect
import os
import warnings
from importlib.util import find_spec
from pathlib import Path

# Their functions call ours, which were called by theirs: pipelines, searches, workers.
_BETWEEN = ("sc_glm", "sklearn", "joblib")


def _folders() -> tuple[str, ...]:
    specs = [find_spec(name) for name in _BETWEEN]
    return tuple(f"{Path(spec.origin).parent}{os.sep}" for spec in specs if spec and spec.origin)


_FOLDERS = _folders()


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn of something in the innermost line that is neither ours nor of what calls us.

    Parameters
    ----------
    message : str
    category : type of Warning, default=UserWarning

    Notes
    -----
    Python 3.12 has ``skip_file_prefixes`` for this. In a worker process no line is the user's: the
    warning points at the outermost one.
    """
    frame = inspect.currentframe()
    if frame is None:  # a Python that keeps none
        warnings.warn(message, category, stacklevel=2)
        return
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_FOLDERS):
        frame = frame.f_back
    warnings.warn_explicit(
        message,
        category,
        filename=frame.f_code.co_filename,
        lineno=frame.f_lineno,
        module=frame.f_globals.get("__name__"),
        registry=frame.f_globals.setdefault("__warningregistry__", {}),
    )
