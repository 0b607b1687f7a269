"""How a gene's fit ended, in words that are decided from the fitted point."""

from enum import StrEnum


class Status(StrEnum):
    """Outcome of one gene's fit; its value is the word shown to users."""

    CONVERGED = "converged"
    POISSON = "Poisson boundary"
    NO_INFLATION = "no zero inflation"
    POISSON_NO_INFLATION = "Poisson boundary, no zero inflation"
    SEPARATED = "separated"
    ALL_ZERO = "all zero"
    NOT_IDENTIFIED = "not identified"
    ITERATION_LIMIT = "iteration limit"

    @property
    def at_maximum(self) -> bool:
        """Whether the likelihood is at its supremum, be it finite in the coefficients or not."""
        return self is not Status.ITERATION_LIMIT

    @property
    def well_defined(self) -> bool:
        """Whether the distribution fitted is the maximum-likelihood one, without reserve."""
        return self in {
            Status.CONVERGED,
            Status.POISSON,
            Status.NO_INFLATION,
            Status.POISSON_NO_INFLATION,
        }
