"""The controls that could break the claims, as tables: what margins, judges, noise and shortcuts make of the numbers.

In `words.yaml` each has the columns that tell its rows apart (`keys`, the case last), those that name a case together
(`case_keys`), and its metrics (`measures`).
"""

from functools import partial

import pandas

from llmva.core.errors import InputError
from llmva.paper.names import MEAN, NUMBERS, name_models, order_methods
from llmva.paper.tables.layout import WORDS, Block, Column, Frames, Table


def make_table(item: str) -> Table:
    """Return the display item `margins`, `judges`, `noise` or `shortcuts`."""
    return Table((item,), WORDS[item]["title"], partial(build_control, item), partial(_show, item))


def build_control(item: str, results: Frames) -> Frames:
    """Return one row per model and case, means over its seeds, and those of all models as the model `mean`.

    Columns: model, the keys, n (prompts of a run), and each measure with `_low` and `_high`, the lowest and the
    highest of what the row is the mean of; `count` is how many these are, seeds of a model or models. One model is its
    own mean: its range is that of its seeds.
    """
    rows, words = results[item], WORDS[item]
    for measure in words["measures"]:
        if measure not in set(rows["metric"]):
            raise InputError(f"results of {item}: no {measure}; run `make {item}` again")
    rows = rows.assign(
        case=rows[words["case_keys"]].astype(str).agg(" and ".join, axis=1),
        method=pandas.Categorical(rows["method"], order_methods(rows["method"])),
    )
    wide = rows.pivot(index=["model", *words["keys"], "n"], columns="metric", values="value").reset_index()
    by_model = _average(wide.assign(model=wide["model"].map(name_models(wide["model"].unique()))), words)
    whole = by_model if by_model["model"].nunique() == 1 else _average(by_model.assign(model=MEAN), words)
    return {"": pandas.concat([by_model, whole.assign(model=MEAN)], ignore_index=True)}


def _average(wide: pandas.DataFrame, words: dict) -> pandas.DataFrame:
    groups = wide.groupby(["model", *words["keys"]], observed=True)[["n", *words["measures"]]]
    bounds = {"low": groups.min(), "high": groups.max()}
    ends = {f"{name}_{end}": frame[name] for name in words["measures"] for end, frame in bounds.items()}
    return groups.mean().assign(**ends, count=groups.size()).reset_index()


def _show(item: str, frames: Frames) -> list[Block | str]:
    words, means = WORDS[item], frames[""][lambda frame: frame["model"] == MEAN]
    columns = [Column(name, text) for name, text in words["keys"].items()]
    count, models = int(means["count"].max()), frames[""]["model"].nunique() - 1
    parts = "interval" if count > 1 else "value"
    columns += [Column(name, text, "decimal", parts=parts) for name, text in words["measures"].items()]
    over = WORDS["controls"]["models" if models > 1 else "seeds" if count > 1 else "run"]
    return [Block(means, columns, words["caption"]), f"{over.format(count=NUMBERS[count])} {words['note']}"]
