"""The tests of fits in the rounding of other processors: `make test` has that of this one.

PyTorch's kernels and those of OpenBLAS, under NumPy and SciPy, are chosen by processor, and each
rounds in its own way. A test that passes by rounding, or a fit that depends on it, fails here.
"""

import os
import subprocess
import sys

TESTS = [
    "_solver",
    "_likelihood/test_arrow_hessian.py",
    "estimators/test_fit_designs.py",
    "estimators/test_prediction.py",
    "estimators/test_regressors.py",
    "test_invariances.py",
]
NO_ROUNDING = "death or interruption or estimator_checks"  # tests that take long, of other things
CAPABILITIES = ["default", "avx2", "avx512"]  # PyTorch's, ascending
KERNELS = "Haswell"  # OpenBLAS's for AVX2

PROBE = """
import scipy.linalg, threadpoolctl, torch
print(torch.backends.cpu.get_cpu_capability().lower())
for library in threadpoolctl.threadpool_info():
    if library["internal_api"] == "openblas":
        print(library["architecture"])
"""


def in_force(setting: dict[str, str]) -> set[str]:
    """Return the capability and the kernels that a process with this setting uses."""
    command = [sys.executable, "-c", PROBE]
    return set(subprocess.check_output(command, env=os.environ | setting, text=True).split())


def settings() -> list[dict[str, str]]:
    """Return those that this processor can have and does not have by itself."""
    own = in_force({})
    names = [name for name in CAPABILITIES if name in own]
    if not names:  # another architecture
        return []
    others = [{"ATEN_CPU_CAPABILITY": x} for x in CAPABILITIES[: CAPABILITIES.index(names[0])]]
    if own - set(names) != {KERNELS}:
        others.append({"OPENBLAS_CORETYPE": KERNELS})
    return others


def main() -> None:
    """Run the tests under each setting."""
    print("This processor has", *sorted(in_force({})), flush=True)
    files = [f"tests/{name}" for name in TESTS]
    command = [sys.executable, "-m", "pytest", "-n", "2", "-k", f"not ({NO_ROUNDING})", *files]
    for setting in settings():
        ((name, value),) = setting.items()
        print(f"-- {name}={value}", flush=True)
        assert value in in_force(setting), f"{name} has no effect"
        subprocess.run(command, env=os.environ | setting, check=True)


if __name__ == "__main__":
    main()
