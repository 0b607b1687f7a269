"""Calls of scikit-learn's callbacks when a fit begins and when it ends.

They came with scikit-learn 1.9. With an earlier version, estimators have no ``set_callbacks``.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["CallbackSupportMixin", "reporting_to_callbacks", "with_callbacks"]

try:
    from sklearn.callback import CallbackSupportMixin, with_callbacks
except ImportError:

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """An empty class, as scikit-learn has no callbacks yet."""

    def with_callbacks(method: Callable[..., Any]) -> Callable[..., Any]:
        """Return the method unchanged."""
        return method


@contextlib.contextmanager
def reporting_to_callbacks(
    estimator: Any, X: Any, y: Any = None, **metadata: Any
) -> Iterator[None]:
    """Call an estimator's callbacks when its fit begins and, if it succeeds, when it ends.

    Parameters
    ----------
    estimator : CallbackSupportMixin
        The estimator. Its method ``fit``, which calls this function, is decorated by
        ``with_callbacks`` or by scikit-learn's ``_fit_context``. These remove the callbacks after
        the fit, also if it fails.
    X, y : object
        Arguments of ``fit``.
    **metadata : object
        Other arguments of ``fit``.
    """
    if not hasattr(estimator, "set_callbacks"):
        yield
        return
    context = estimator._init_callback_context()  # noqa: SLF001 - documented for estimators
    context.call_on_fit_task_begin(estimator=estimator, X=X, y=y, metadata=metadata)
    yield
    context.call_on_fit_task_end(
        estimator=estimator, X=X, y=y, metadata=metadata, reconstruction_attributes={}
    )
