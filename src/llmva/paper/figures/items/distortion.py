"""Figure 6: the best F1 against the angle between the vectors used and those fitted."""

import pandas
from matplotlib.figure import Figure

from llmva.core.vocabulary import ORIGINAL
from llmva.paper.figures import style
from llmva.paper.figures.tidying import widen

SCORES = {
    "strict_f1": ("Strict F1", {"color": style.BLUE, "linestyle": "-", "marker": "o"}),
    "f1": ("F1", {"color": style.ORANGE, "linestyle": "--", "marker": "s"}),
}
# `probe.iterations` of every parameter file; results do not say it.
ITERATIONS = 5


def tidy_distortion(results: pandas.DataFrame) -> pandas.DataFrame:
    """Return, per model and angle, both scores' mean, lowest and highest over draws, and the original's."""
    names, original = list(SCORES), results["method"] == ORIGINAL
    groups = widen(results[~original], names, ["degrees", "draw"]).groupby(["model", "degrees"])[names]
    ends = {"": groups.mean(), "_low": groups.min(), "_high": groups.max()}
    table = pandas.concat([frame.add_suffix(end) for end, frame in ends.items()], axis="columns").reset_index()
    return table.merge(widen(results[original], names).rename(columns={name: f"original_{name}" for name in names}))


def draw_distortion(data: pandas.DataFrame) -> Figure:
    """Draw F1 against the angle, mean and range of the draws, with the original's F1."""
    labels = style.WORDS["figure6"]["labels"]
    labels = labels | {"y": labels["y"].format(iterations=ITERATIONS)}
    return style.draw_models(data, _draw_model, alone=(3.4, 2.2), among=(2.3, 1.7), **labels)


def _draw_model(axis, rows: pandas.DataFrame) -> None:
    for name, (label, look) in SCORES.items():
        bounds = rows[f"{name}_low"], rows[f"{name}_high"]
        axis.fill_between(rows["degrees"], *bounds, color=look["color"], alpha=0.2, linewidth=0)
        axis.plot(rows["degrees"], rows[name], label=label, **look)
    # Mostly one line: hardly a reply of the original counts as broken.
    for original in {rows[f"original_{name}"].iloc[0]: None for name in SCORES}:
        axis.axhline(original, color="black", linewidth=0.9, linestyle=(0, (1, 1.2)), label="Original")
    # Named in grey, since it stands behind both lines.
    axis.fill_between([], [], color=style.GREY, alpha=0.3, linewidth=0, label="Range of the draws")
    axis.set(title=style.title_of(rows), xticks=range(0, 91, 30), ylim=(0, 1.04))
