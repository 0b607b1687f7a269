"""The state of an estimator: what a failed fit leaves of it, and which pickles open.

What is written holds text, numbers, lists, dictionaries and NumPy arrays alone, beside the
package's own classes. So skops can write and audit it, and pandas and formulaic may be of another
version where it is read.
"""

import contextlib
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from typing import Any, ClassVar

# Raised whenever estimators of an earlier version would not work with the state they bring.
_FORMAT = 2


class StateMixin:
    """Notes the version in an estimator's pickle, and opens only what this version can use.

    It stands first among the bases of an estimator.
    """

    # What methods of a fitted estimator read; without any of them, it is not fitted.
    _fitted_state: ClassVar[tuple[str, ...]] = ()

    def _state_to_plain(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return a state in which all is plain; the estimator's own stays as it is."""
        return state

    def _state_from_plain(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return the state that was written so."""
        return state

    def __getstate__(self) -> dict[str, Any]:
        state = self._state_to_plain(super().__getstate__())  # type: ignore[arg-type]
        return {**state, "_sc_glm_format": _FORMAT, "_sc_glm_version": version("sc_glm")}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        own = dict(state)
        form, made_by = own.pop("_sc_glm_format", None), own.pop("_sc_glm_version", "unknown")
        needed = {*self._get_param_names()}  # type: ignore[attr-defined]
        if any(name in own for name in self._fitted_state):
            needed |= {*self._fitted_state}
        lacking = sorted(needed - {*own})
        if form != _FORMAT or lacking:
            reason = f"it lacks {lacking}" if form == _FORMAT else f"its format is {form}"
            raise ValueError(
                f"This {type(self).__name__} was saved by sc_glm {made_by}, and cannot be opened "
                f"by sc_glm {version('sc_glm')}, whose format is {_FORMAT}: {reason}. Open it "
                "with the version that saved it, or fit it again."
            )
        super().__setstate__(self._state_from_plain(own))  # type: ignore[misc]


@contextlib.contextmanager
def restore_on_failure(estimator: Any) -> Iterator[None]:
    """Give an estimator back all the attributes that it had, if what is inside fails."""
    before = vars(estimator).copy()
    try:
        yield
    except BaseException:
        vars(estimator).clear()
        vars(estimator).update(before)
        raise
