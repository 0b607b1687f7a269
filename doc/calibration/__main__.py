"""Measure how often tests reject what is true, and how often intervals hold the truth.

``python doc/calibration`` simulates genes, fits and tests them in one thread, and writes tables and
pictures to ``doc/calibration/results``, which the page *Calibration* of the documentation shows;
``python doc/calibration nulls donors`` makes some of them. Takes 15 minutes of a processor, and
needs the ``plots`` extra. Numbers in brackets are binomial standard errors.
"""

import argparse
import time
from pathlib import Path

import clusters
import donors
import intervals
import nulls
import pandas as pd
import pictures
import predictions
import sums
import torch
import wrong_models

RESULTS = Path(__file__).parent / "results"
N_GENES = 20_000
OF_DONORS = 5_000
OF_CLUSTERS = 2_000
WITH_PROFILES = 5_000
OF_NEW_CELLS = 2_000


def of_nulls(folder):
    """Test true hypotheses, cells being independent."""
    results = {title: run(N_GENES) for title, run in nulls.NULLS.items()}
    pictures.nulls(results, folder / "nulls.png")
    return nulls.tables(results)


def of_intervals(_):
    """Find intervals, cells being independent."""
    return intervals.tables({"wald": N_GENES, "profile": WITH_PROFILES})


def of_donors(folder):
    """Test true hypotheses and find intervals, cells being those of donors."""
    results = {design: donors.nulls(design, OF_DONORS) for design in donors.DESIGNS}
    pictures.donors(results, folder / "donors.png")
    return donors.tables(results, OF_DONORS)


def of_sums(_):
    """Test true and false hypotheses by sums of donors."""
    return sums.tables(N_GENES)


def of_clusters(_):
    """Compare leverages of the observed and of the expected information."""
    return clusters.tables(OF_CLUSTERS)


def of_wrong_models(_):
    """Test true hypotheses with a model that is not."""
    return wrong_models.tables(N_GENES)


def of_predictions(_):
    """Predict means and counts of new cells, after fits of few cells and of many."""
    return predictions.tables((10, 20, 50, 200), OF_NEW_CELLS)


STUDIES = {
    "nulls": of_nulls,
    "intervals": of_intervals,
    "donors": of_donors,
    "sums": of_sums,
    "clusters": of_clusters,
    "wrong_models": of_wrong_models,
    "predictions": of_predictions,
}


def written(piece):
    """Write a table out, or a line as it is."""
    return piece.to_string(index=False) if isinstance(piece, pd.DataFrame) else piece


def main():
    """Run the studies that are asked for."""
    parser = argparse.ArgumentParser(prog="python doc/calibration", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="STUDY", help=f"of {', '.join(STUDIES)}")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    if unknown := set(options.names) - set(STUDIES):
        parser.error(f"no study {', '.join(sorted(unknown))}; there are {', '.join(STUDIES)}")
    options.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for name in options.names or STUDIES:
        start = time.process_time()
        text = "\n\n".join(map(written, STUDIES[name](options.output)))
        (options.output / f"{name}.txt").write_text(text + "\n")
        print(text, f"\n\n({name}: {time.process_time() - start:.0f} s)\n", flush=True)


if __name__ == "__main__":
    main()
