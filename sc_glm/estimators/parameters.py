"""Parameters of the regressors: how they are given, their valid values, and what a solver gets."""

import functools
import inspect
import os
import textwrap
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any, ParamSpec

import numpy as np
import torch
from sklearn.utils import check_scalar
from sklearn.utils._param_validation import Interval, StrOptions

from sc_glm._contract.validation import quoted, similar_names
from sc_glm._solver.gene_block import Settings

# In the format of scikit-learn's parameter validation.
PARAMETER_CONSTRAINTS: dict[str, list[Any]] = {
    "alpha": [Interval(Real, 0, None, closed="left"), dict],
    "fit_intercept": ["boolean"],
    "max_iter": [Interval(Integral, 1, None, closed="left")],
    "tol": [Interval(Real, 0, None, closed="neither")],
    "batch_size": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
    "n_jobs": [Integral, None],
    "device": [str, torch.device],
    "dtype": [StrOptions({"float64", "float32"})],
    "warm_start": ["boolean"],
    "checkpoint_dir": [str, os.PathLike, None],
    "verbose": ["verbose"],
    "size": [Interval(Real, 0, None, closed="right"), "array-like", None],
}

_FORMULA_ADVICE = (
    "Formulas go to a FormulaTransformer before it, as in make_pipeline(FormulaTransformer('~ x'), "
    "{0}())."
)

P = ParamSpec("P")


def keyword_only(init: Callable[P, None]) -> Callable[P, None]:
    """Make an ``__init__`` refuse positional and unknown parameters with a helpful message.

    Python's own message would name the class that defines the ``__init__``, which is private.
    """
    known = [name for name in inspect.signature(init).parameters if name != "self"]

    @functools.wraps(init)
    def checked(*args: P.args, **kwargs: P.kwargs) -> None:
        name, positional = type(args[0]).__name__, args[1:]
        if positional:
            raise TypeError(
                f"{name} takes its parameters by name, such as {name}(alpha=0.1), but "
                f"{quoted(positional[0])} was given without one. {_FORMULA_ADVICE.format(name)}"
            )
        for parameter in kwargs:
            if parameter not in known:
                similar = similar_names(parameter, known, 1)
                hint = f"Did you mean {similar[0]!r}?" if similar else f"It has {', '.join(known)}."
                raise TypeError(
                    f"{name} has no parameter {parameter!r}. {hint} {_FORMULA_ADVICE.format(name)}"
                )
        init(*args, **kwargs)

    return checked


def solver_settings(max_iter: int, tol: float, device: str | torch.device, dtype: str) -> Settings:
    """Return the solver's settings; raise a ValueError if the device is not available."""
    try:
        device_ = torch.device(device)
        torch.zeros((), dtype=getattr(torch, dtype), device=device_).item()
    except (RuntimeError, AssertionError, TypeError, ImportError) as error:
        reason = str(error).splitlines()[0].split(". ")[0].rstrip(".")
        raise ValueError(
            f"device={str(device)!r} with dtype={dtype!r} is not available here: "
            f"{textwrap.shorten(reason, 100, placeholder=' ...')}. Devices are 'cpu', which "
            "is always there, 'cuda', 'cuda:1' and so on, and 'mps', for dtype='float32' alone."
        ) from error
    return Settings(max_iter, tol, device_, getattr(torch, dtype))


def penalty_strengths(
    alpha: float | dict[str, float], parts: Sequence[str], total_weight: float
) -> dict[str, float]:
    """Return the penalty of each part on the scale of the summed log-likelihood."""
    by_part = alpha if isinstance(alpha, dict) else dict.fromkeys(parts, alpha)
    for part, value in by_part.items():
        if part not in parts:
            raise ValueError(
                f"alpha names the part {part!r}; this model's parts are {list(parts)}."
            )
        check_scalar(value, f"alpha[{part!r}]", Real, min_val=0)
        if not np.isfinite(value):
            raise ValueError(f"alpha[{part!r}] must be finite, not {value}.")
    return {part: total_weight * float(by_part.get(part, 0.0)) for part in parts}
