"""Results as files: JSON with everything, tables for the documentation, and two pictures."""

import json
import os
import platform
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import matplotlib as mpl
import numpy as np

import sc_glm

mpl.use("Agg")
import matplotlib.pyplot as plt

OURS, PEERS = "#c44e52", "#a9b4c2"
LIBRARIES = ("numpy", "scipy", "torch")
NAMES = {
    "adam": "Adam, 40 epochs",
    "scdesigner": "scDesigner",
    "scdesigner_converged": "scDesigner, 2000 epochs",
}


def machine():
    """Describe the machine and the libraries that matter for speed, and nothing that names it."""
    info, cpu = Path("/proc/cpuinfo"), platform.machine()
    if info.exists():
        models = [x.split(":")[1] for x in info.read_text().splitlines() if "model name" in x]
        cpu = models[0].strip() if models else cpu
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "sc_glm": sc_glm.__version__,
        **{library: version(library) for library in LIBRARIES},
    }


def write(folder, name, result):
    """Write the result of one case or study as JSON."""
    (folder / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")


def publish(folder, names):
    """Make tables and pictures of all results that a folder holds, in the order of the names."""
    paths = {name: folder / f"{name}.json" for name in names}
    results = {name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()}
    cases = {name: result for name, result in results.items() if "fits" in result}
    text = [_section(name, result) for name, result in results.items()]
    (folder / "tables.txt").write_text("\n".join(text))
    if cases:
        _draw_cases(cases, folder / "fits.png")
    if "growth" in results:
        _draw_growth(results["growth"]["points"], folder / "growth.png")


def _section(name, result):
    """Return a section of the page that includes this."""
    lines = _comparison(result) if "fits" in result else _study(name, result)
    return "\n".join([f"``{name}``", "~" * (len(name) + 4), "", *lines, ""])


def _comparison(result):
    n_cells, n_genes = result["shape"]
    ours = next((fit for fit in result["fits"] if fit["tool"] == "sc_glm"), None)
    rows = [
        {
            "tool": _name(fit["tool"]),
            "seconds": f"{fit['median_seconds']:.3g}",
            "times sc_glm": f"{fit['median_seconds'] / ours['median_seconds']:.2g}" if ours else "",
            "by the clock": f"{fit['median_clock']:.3g}",
            "first fit": f"{fit['first_seconds']:.3g}",
            "fits": str(len(fit["seconds"])),
            "MiB (before)": _mebibytes(fit),
            # A sum over the other genes would compare with nothing.
            "log-likelihood": "" if fit["failed_genes"] else f"{fit['log_likelihood']:.4f}",
            "worst gene": _below(fit, "worst_gene_below"),
            "genes failed": str(fit["failed_genes"]),
            "not converged": _number(fit["unconverged_genes"]) or "not said",
        }
        for fit in sorted(result["fits"], key=lambda fit: fit["median_seconds"])
    ]
    lines = [f"{n_cells} cells x {n_genes} genes, {result['model']}.", "", *_table(rows), ""]
    if ours:
        entry = 1e9 * ours["median_seconds"] / n_cells / n_genes
        steps = f"{ours['mean_n_iter']:.1f} iterations per gene in the mean"
        lines.append(f"sc_glm took {entry:.0f} ns per entry (cells x genes), with {steps}.")
    if result["missing"]:
        lines.append(f"Not installed: {', '.join(map(_name, result['missing']))}.")
    return [*lines, "", _versions(result)]


def _study(name, result):
    points = _with_factors(result["points"]) if name == "growth" else result["points"]
    header = dict.fromkeys(key for row in points for key in row)
    rows = [{key: _number(row.get(key)) for key in header} for row in points]
    picture = [".. image:: /benchmarks/results/growth.png", ""] if name == "growth" else []
    return [*picture, *_table(rows), "", _versions(result)]


def _with_factors(points):
    """Add how many times longer each point takes than the one before it of its kind."""
    rows = points[:1]
    for before, row in pairwise(points):
        kind = row["point"].split()[0]
        # Only the clock tells what several workers gain.
        key = "by the clock" if kind == "n_jobs" else "seconds"
        same = before["point"].startswith(kind)
        rows.append(row | {"times": row[key] / before[key]} if same else row)
    return rows


def _table(rows):
    lines = [",".join(f'"{x}"' for x in row) for row in ([*rows[0]], *(r.values() for r in rows))]
    return [".. csv-table::", "   :header-rows: 1", "", *(f"   {line}" for line in lines)]


def _name(tool):
    return NAMES.get(tool, tool)


def _number(x):
    if isinstance(x, str):
        return x
    return "" if x is None else f"{x:.3g}" if abs(x) < 1000 else f"{x:.0f}"


def _mebibytes(fit):
    peak, before = fit["memory_peak"], fit["memory_before"]
    return "" if peak is None else f"{peak / 2**20:.0f} ({before / 2**20:.0f})"


def _below(fit, key):
    x = fit[key]
    if not fit["same_model"]:
        return "another model"
    if x is None:
        return ""
    return "< 0.0001" if x < 1e-4 else f"{x:.4f}" if x < 1 else f"{x:.1f}"


def _versions(result):
    m = result["machine"]
    versions = {"sc_glm": m["sc_glm"]}
    versions |= {_name(fit["tool"]): fit["version"] for fit in result.get("fits", [])}
    versions |= {"Python": m["python"], **{library: m[library] for library in LIBRARIES}}
    said = [f"{name} {number}" for name, number in versions.items()]
    return f"*{m['cpu']}, {m['cores']} cores, {m['system']}; {', '.join(said)}.*"


def _draw_cases(cases, path):
    """Draw a panel for each case: times of all tools, and beside them what their fits lack."""
    sizes = [len(result["fits"]) for result in cases.values()]
    figure, axes = plt.subplots(
        len(cases),
        figsize=(8, 0.27 * sum(sizes) + 0.5 * len(cases) + 0.9),
        height_ratios=sizes,
        sharex=True,
        squeeze=False,
        layout="constrained",
    )
    for axis, result in zip(axes[:, 0], cases.values(), strict=True):
        fits = sorted(result["fits"], key=lambda fit: -fit["median_seconds"])
        seconds = [fit["median_seconds"] for fit in fits]
        colors = [OURS if fit["tool"] == "sc_glm" else PEERS for fit in fits]
        bars = axis.barh([_name(fit["tool"]) for fit in fits], seconds, color=colors, height=0.72)
        axis.bar_label(bars, [f"{x:.2g} s" for x in seconds], padding=3, fontsize=8)
        beside = axis.get_yaxis_transform()
        for y, fit in enumerate(fits):
            text = _below(fit, "total_below")
            if fit["failed_genes"]:
                text += f", {fit['failed_genes']} genes failed"
            axis.text(1.03, y, text, transform=beside, va="center", fontsize=8)
        n_cells, n_genes = result["shape"]
        model = result["model"].replace("``", "")
        axis.set_title(f"{model}: {n_cells} x {n_genes}", loc="left", fontsize=9)
        axis.tick_params(axis="y", length=0, labelsize=9)
        axis.spines[["top", "right", "left"]].set_visible(False)
    every = [fit["median_seconds"] for result in cases.values() for fit in result["fits"]]
    axis.set_xscale("log")
    axis.set_xlim(min(every) / 3, max(every) * 3)  # room for the labels
    axis.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    axis.set_xlabel("seconds of one processor")
    axis.minorticks_off()
    axes[0, 0].annotate(
        "log-likelihood below the best",
        (1.03, 1),
        (0, 6),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=9,
    )
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _draw_growth(points, path):
    """Draw time against size, one panel for each thing that grows."""
    kinds = {}
    for row in points:
        kind, size = row["point"].split()
        if kind != "n_jobs":
            kinds.setdefault(kind, []).append((int(size), row["seconds"]))
    figure, axes = plt.subplots(1, len(kinds), figsize=(9, 3), sharey=True, layout="constrained")
    for axis, (kind, rows) in zip(axes, kinds.items(), strict=True):
        sizes, seconds = np.array(rows).T
        axis.plot(sizes, seconds, "o-", color=OURS)
        axis.plot(sizes, seconds[0] * sizes / sizes[0], "--", color="0.6", zorder=0)
        axis.set(xscale="log", yscale="log", xlabel=kind, xticks=sizes)
        axis.set_xticks([], minor=True)
        axis.set_xticklabels([f"{x:g}" if x < 1e4 else f"{x / 1000:g}k" for x in sizes])
        axis.yaxis.set_major_formatter(lambda y, _: f"{y:g}")
        axis.yaxis.set_minor_formatter("")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("seconds (dashed: proportional)")
    figure.savefig(path, dpi=150)
    plt.close(figure)
