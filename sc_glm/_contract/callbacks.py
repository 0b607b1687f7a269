"""What scikit-learn's callbacks are told of a fit: that it begins, and that it has ended.

They came with scikit-learn 1.9; with an earlier version, estimators have no ``set_callbacks``.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["CallbackSupportMixin", "reporting_to_callbacks", "with_callbacks"]

try:
    from sklearn.callback import CallbackSupportMixin, with_callbacks
except ImportError:

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """No support, as nothing could be supported."""

    def with_callbacks(method: Callable[..., Any]) -> Callable[..., Any]:
        """Return the method as it is."""
        return method


@contextlib.contextmanager
def reporting_to_callbacks(
    estimator: Any, X: Any, y: Any = None, **metadata: Any
) -> Iterator[None]:
    """Tell an estimator's callbacks that its fit begins, and if it succeeds that it has ended.

    Parameters
    ----------
    estimator : CallbackSupportMixin
        Its method ``fit``, which calls this, is decorated by ``with_callbacks`` or by
        scikit-learn's ``_fit_context``: they dismiss the callbacks, also if the fit fails.
    X, y : object
        What is fitted.
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
