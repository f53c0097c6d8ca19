"""Plots as SVG, for light and dark pages alike: no background, grey text, colours that are seen on both."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .churn import Churn
from .figures import BUCKETS, Figures
from .scenarios import Scenario

COLOURS = ("#2f81f7", "#e0823d", "#3fa45b", "#c7539b")
DASHES = ("-", "-", "--", ":")
GREY = "#808890"
STYLE = {
    "svg.hashsalt": "unsticky",  # the same plot is the same file
    "svg.fonttype": "none",
    "font.size": 10,
    "text.color": GREY,
    "axes.labelcolor": GREY,
    "axes.edgecolor": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GREY,
    "grid.alpha": 0.25,
    "legend.frameon": False,
}


def plot(scenario: Scenario, found: Sequence[Figures], folder: Path, kind: str) -> Path:
    """How it went over time, into `folder`. Without matplotlib it raises ImportError."""
    figure, axes = _axes()
    curve, by_name = scenario.curve, {one.policy: one for one in found}
    shown = [by_name[name] for name in curve.policies if name in by_name] or list(found[:4])
    for one, colour, dash in zip(shown, COLOURS, DASHES, strict=False):
        step = one.seconds / BUCKETS
        times = [(at + 0.5) * step for at in range(BUCKETS)]
        axes.plot(times, one.course[curve.measure], dash, color=colour, label=one.policy, linewidth=1.6)
    for name, (begin, end) in scenario.marks.items():
        seconds = shown[0].seconds
        axes.axvspan(begin * seconds, end * seconds, color=GREY, alpha=0.12, linewidth=0, label=name)
    if curve.log:
        _count_in_decades(axes.yaxis, axes.set_yscale)
    axes.set_ylim(bottom=None if curve.log else 0)
    axes.set_xlabel("seconds")
    axes.set_ylabel(curve.label)
    return _saved(figure, axes, folder / f"simulation-{scenario.name}.{kind}")


def plot_churn(found: Sequence[Churn], folder: Path, kind: str) -> Path:
    figure, axes = _axes()
    rows = range(len(found))
    bars = (("one leaves", "left"), ("one joins", "joined"), ("one is ejected", "ejected"))
    for at, ((label, name), colour) in enumerate(zip(bars, COLOURS, strict=False)):
        values = [getattr(one, name) for one in found]
        axes.barh([row + 0.26 * (at - 1) for row in rows], values, 0.24, color=colour, label=label)
    axes.axvline(found[-1].least, color=GREY, linewidth=1, linestyle="--", label="its own share")
    axes.set_yticks(list(rows), [one.policy for one in found])
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("% of the keys that moved")
    return _saved(figure, axes, folder / f"simulation-churn.{kind}")


def _axes() -> tuple[Any, Any]:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    mpl.rcParams.update(STYLE)
    figure, axes = pyplot.subplots(figsize=(7.2, 3.0))
    axes.grid(axis="both")
    axes.set_axisbelow(True)
    return figure, axes


def _count_in_decades(axis: Any, set_scale: Any) -> None:
    """Logarithmic, with plain numbers."""
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    set_scale("log")
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axis.set_minor_locator(NullLocator())


def _saved(figure: Any, axes: Any, path: Path) -> Path:
    from matplotlib import pyplot

    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3)
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"Date": None} if path.suffix == ".svg" else None
    figure.savefig(path, transparent=True, bbox_inches="tight", metadata=metadata)
    pyplot.close(figure)
    return path
