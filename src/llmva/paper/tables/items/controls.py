"""The controls that could break the claims, as tables: what judges, noise and shortcuts make of the numbers."""

from dataclasses import dataclass
from functools import partial

import pandas

from llmva.core.errors import InputError
from llmva.paper.names import MEAN, name_models, order_methods
from llmva.paper.tables.formats import Column, as_score, as_text
from llmva.paper.tables.layout import Block, Table


@dataclass(frozen=True)
class Control:
    """A table of a control: its results' metrics are the measures, and key columns name the case.

    Attributes
    ----------
    title, caption, note : str
        In print.
    case : str
        The print name of the case.
    case_keys : tuple of str
        The key columns that name it together.
    keys : dict of str to str
        Further columns that tell rows apart, and their print names.
    measures : dict of str to Column
        The metrics, and how they are printed.
    """

    title: str
    caption: str
    note: str
    case: str
    case_keys: tuple[str, ...]
    keys: dict[str, str]
    measures: dict[str, Column]


CONTROLS = {
    "judges": Control(
        title="Judges",
        caption="Agreement of other judges with the guard on the same test replies: Cohen's kappa, and the share of "
        "equal verdicts.",
        note="Evasions: a judge that also takes hedged and evasive answers for refusals. Kappa is undefined (–) where "
        "both judges give one and the same verdict throughout.",
        case="Judges",
        case_keys=("first", "second"),
        keys={"method": "Method", "dataset": "Prompts"},
        measures={"kappa": Column("Kappa", as_score), "agreement": Column("Agreement", as_score)},
    ),
    "noise": Control(
        title="Gibberish",
        caption="Validation metrics of the original with Gaussian noise on every weight matrix, in units of the "
        "matrix's own standard deviation.",
        note="A good metric falls with the noise. F1 does not, since a guard finds gibberish harmless and no refusal.",
        case="Noise",
        case_keys=("noise",),
        keys={},
        measures={
            "f1": Column("F1", as_score),
            "strict_f1": Column("Strict F1", as_score),
            "degenerate": Column("Degenerate", as_score),
        },
    ),
    "shortcuts": Control(
        title="Shortcut control",
        caption="v_b learnt from one benign and one toxic set: its accuracy on held-out prompts of these and of the "
        "other two sets, and its cosine with the v_b of all sets, means over sublayers.",
        note="Guessing would be right half of the time.",
        case="Learnt from",
        case_keys=("benign_set", "toxic_set"),
        keys={},
        measures={
            "seen_accuracy": Column("These sets", as_score),
            "unseen_accuracy": Column("Other sets", as_score),
            "cosine": Column("Cosine", as_score),
        },
    ),
}


def make_table(item: str) -> Table:
    """Return the display item `judges`, `noise` or `shortcuts`."""
    control = CONTROLS[item]
    return Table(
        title=control.title,
        sources=(item,),
        build=lambda results: {"": build_control(results[item], item)},
        blocks=partial(_blocks, control),
        notes=lambda _: [f"Means over models, in brackets the lowest and the highest model. {control.note}"],
    )


def build_control(rows: pandas.DataFrame, item: str) -> pandas.DataFrame:
    """Return one row per model and case, means over its seeds, and those of all models as the model `mean`.

    Columns: model, the control's keys, case, n (prompts of a run), and each measure with `_low` and `_high`, the
    lowest and the highest of what the row is the mean of.

    Raises
    ------
    InputError
        When a measure is missing altogether.
    """
    control = CONTROLS[item]
    long = rows.assign(case=rows[list(control.case_keys)].astype(str).agg(" and ".join, axis=1))
    for measure in control.measures:
        if measure not in set(long["metric"]):
            raise InputError(f"results of {item}: no {measure}; run `make {item}` again")
    index = [*control.keys, "case"]
    wide = long.pivot(index=["model", *index, "n"], columns="metric", values="value")[list(control.measures)]
    wide = wide.reset_index("n").reset_index()
    by_model = _averaged(wide.assign(model=wide["model"].map(name_models(wide["model"].unique()))), ["model", *index])
    plain = by_model[["model", *index, "n", *control.measures]]
    table = pandas.concat([by_model, _averaged(plain.assign(model=MEAN), ["model", *index])], ignore_index=True)
    return table.sort_values(["model", *index], key=_order, kind="stable", ignore_index=True)


def _averaged(wide: pandas.DataFrame, by: list[str]) -> pandas.DataFrame:
    groups = wide.groupby(by, sort=False)
    found = groups.mean()
    for name in wide.columns.drop([*by, "n"]):
        found[f"{name}_low"], found[f"{name}_high"] = groups[name].min(), groups[name].max()
    return found.reset_index()


def _order(column: pandas.Series) -> pandas.Series:
    if column.name == "model":
        # As they come, the mean last.
        return column.map({model: place for place, model in enumerate(column.unique())})
    if column.name == "method":
        return column.map(order_methods(column).index)
    return column


def _blocks(control: Control, frames: dict[str, pandas.DataFrame]) -> list[Block]:
    frame = frames[""]
    means = frame[frame["model"] == MEAN].drop(columns="model").reset_index(drop=True)
    labels = {**control.keys, "case": control.case}
    columns = {**{name: Column(label, as_text) for name, label in labels.items()}, **control.measures}
    return [Block(means, columns, tuple(labels), control.caption)]
