"""The state of estimators: restored when a fit fails, and saved in pickles and files of skops.

A saved state holds strings, numbers, lists, dictionaries, NumPy arrays and the package's own
classes only. So skops can write and audit it, and other versions of pandas and formulaic can read
it.
"""

import contextlib
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from typing import Any, ClassVar

# Version of the format of saved states. A change that breaks the states of earlier versions
# increases it.
_STATE_FORMAT = 2


class StateMixin:
    """Saves the version with the state of an estimator, and refuses states of other formats.

    It must be the first base of an estimator.
    """

    # Attributes that methods of a fitted estimator read. An unfitted one has none of them.
    _fitted_state: ClassVar[tuple[str, ...]] = ()

    def _state_to_plain(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return the state to save, in plain types; the estimator's own state stays unchanged."""
        return state

    def _state_from_plain(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return the estimator's state from a saved one."""
        return state

    def __getstate__(self) -> dict[str, Any]:
        state = self._state_to_plain(super().__getstate__())  # type: ignore[arg-type]
        return {**state, "_sc_glm_format": _STATE_FORMAT, "_sc_glm_version": version("sc_glm")}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        attributes = dict(state)
        state_format = attributes.pop("_sc_glm_format", None)
        saved_by = attributes.pop("_sc_glm_version", "unknown")
        needed = {*self._get_param_names()}  # type: ignore[attr-defined]
        if any(name in attributes for name in self._fitted_state):
            needed |= {*self._fitted_state}
        missing = sorted(needed - {*attributes})
        same_format = state_format == _STATE_FORMAT
        if missing or not same_format:
            reason = f"it lacks {missing}" if same_format else f"its format is {state_format}"
            raise ValueError(
                f"This {type(self).__name__} was saved by sc_glm {saved_by}, and cannot be opened "
                f"by sc_glm {version('sc_glm')}, whose format is {_STATE_FORMAT}: {reason}. "
                "Open it with the version that saved it, or fit it again."
            )
        super().__setstate__(self._state_from_plain(attributes))  # type: ignore[misc]


@contextlib.contextmanager
def restore_on_failure(estimator: Any) -> Iterator[None]:
    """Restore all attributes of an estimator if the body of the ``with`` statement fails."""
    before = vars(estimator).copy()
    try:
        yield
    except BaseException:
        vars(estimator).clear()
        vars(estimator).update(before)
        raise
