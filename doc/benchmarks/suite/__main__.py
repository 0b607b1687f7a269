"""Time sc_glm against its peers, and measure how its time and memory grow.

``python doc/benchmarks/suite`` runs all cases, ``python doc/benchmarks/suite bench_nb --tools
sc_glm statsmodels`` some of them with some tools. Tools that are not installed are left out, and so
are real data unless the variable ``SC_GLM_DATA`` names their folder. What is measured, and how, is
explained on the page *Benchmarks* of the documentation, which includes what is written here.
"""

import argparse
from pathlib import Path

import report
from cases import CASES
from measuring import compare
from studies import STUDIES, measure

RESULTS = Path(__file__).parents[1] / "results"


def main():
    """Run the cases and studies that are asked for, and write their results."""
    everything = [*CASES, *STUDIES]
    parser = argparse.ArgumentParser(prog="python doc/benchmarks/suite", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="CASE", help=f"of {', '.join(everything)}")
    tools = sorted({tool for entry in CASES.values() for tool in entry.tools})
    parser.add_argument("--tools", nargs="+", choices=tools, default=tools)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    if unknown := set(options.names) - set(everything):
        parser.error(f"no case {', '.join(sorted(unknown))}; there are {', '.join(everything)}")
    options.output.mkdir(parents=True, exist_ok=True)
    machine = report.machine()
    for name in options.names or everything:
        print(name, flush=True)
        if name in STUDIES:
            result = {"machine": machine, "points": measure(name, options.repeats)}
        else:
            try:
                case = CASES[name].build()
            except FileNotFoundError as error:
                print(f"  left out: {error}")
                continue
            asked = [tool for tool in CASES[name].tools if tool in options.tools]
            fits, missing = compare(case, asked, options.repeats)
            for tool, why in missing.items():
                print(f"  {tool} is not installed: {why}")
            if not fits:
                print("  left out: none of these tools is for it, or installed")
                continue
            result = {
                "model": case.model,
                "shape": case.counts.shape,
                "machine": machine,
                "fits": fits,
                "missing": list(missing),
            }
        report.write(options.output, name, result)
        # After each case, lest a long run that is cut short leaves none.
        report.publish(options.output, everything)


if __name__ == "__main__":
    main()
