"""Pictures of how often true hypotheses are rejected at a level of 5 %."""

import judging
import matplotlib as mpl
import numpy as np

mpl.use("Agg")
import matplotlib.pyplot as plt

LEVEL = 0.05
HIGHEST = 31.0  # per cent
COLORS = {
    "Wald, observed": "#4c72b0",
    "Wald, robust": "#dd8452",
    "likelihood ratio": "#55a868",
    "observed": "#4c72b0",
    "robust": "#dd8452",
    "pseudobulk": "#8c8c8c",
    "cluster": "#c44e52",
    "weighted": "#55a868",
}


def rejected(test, genes=slice(None)):
    """Return the percentage of p-values below the level, and its standard error."""
    share = judging.rejected(test["p_value"][genes], LEVEL)
    return 100 * share.of, 100 * share.error


def finish(figure, axes, path):
    """Mark the level and save."""
    for axis in axes:
        axis.axhline(100 * LEVEL, color="0.6", linestyle="--", zorder=0)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def nulls(results, path):
    """Draw a panel for each hypothesis: rejections of each test over classes of genes."""
    figure, axes = plt.subplots(
        len(results), figsize=(7, 1.6 * len(results)), sharex=True, layout="constrained"
    )
    for axis, (title, (data, tests)) in zip(axes, results.items(), strict=True):
        classes = dict(list(data.classes())[1:])
        for number, (name, test) in enumerate(tests.items()):
            rates, errors = np.transpose([rejected(test, genes) for genes in classes.values()])
            at = np.arange(len(classes)) + 0.12 * (number - (len(tests) - 1) / 2)
            axis.errorbar(at, rates, errors, fmt="o", color=COLORS[name], label=name)
        axis.set_title(title, loc="left", fontsize=9)
        axis.set_xticks(range(len(classes)), list(classes))
        axis.set_ylim(0, HIGHEST)
    axes[0].legend(frameon=False, fontsize=8, ncols=3)
    axes[2].set_ylabel("rejected at 5 %, % of p-values")
    axes[-1].set_xlabel("expected number of cells with a positive count, of 300")
    finish(figure, axes, path)


def donors(results, path):
    """Draw the rejections of a condition of donors, for each design and kind."""
    kinds = ("observed", "robust", "pseudobulk", "cluster", "weighted")
    figure, axis = plt.subplots(figsize=(8, 3.8), layout="constrained")
    for number, kind in enumerate(kinds):
        rates, errors = np.transpose([rejected(own["condition", kind]) for own in results.values()])
        at = np.arange(len(results)) + 0.16 * (number - (len(kinds) - 1) / 2)
        axis.bar(at, rates, 0.16, yerr=errors, color=COLORS[kind], label=kind)
    axis.set_xticks(range(len(results)), list(results), rotation=35, ha="right", fontsize=8)
    axis.set_ylabel("rejected at 5 %, % of p-values")
    axis.legend(frameon=False, fontsize=8, ncols=len(kinds))
    finish(figure, [axis], path)
