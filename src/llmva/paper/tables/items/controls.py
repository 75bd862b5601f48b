"""The controls that could break the claims, as tables: what judges, noise and shortcuts make of the numbers."""

from dataclasses import dataclass

import pandas

from llmva.core.errors import InputError
from llmva.paper.names import MEAN, name_models, order_methods
from llmva.paper.tables.layout import WORDS, Block, Column, Frames, Table


@dataclass(frozen=True)
class Control:
    """A table of a control: one row per case, which `case_keys` name together, and a column per measure.

    `keys` are the columns that tell rows apart, the case last; they and `measures` (metrics) have their print names.
    """

    item: str
    title: str
    caption: str
    note: str
    case_keys: list[str]
    keys: dict[str, str]
    measures: dict[str, str]

    def make_table(self) -> Table:
        """Return the display item."""
        return Table((self.item,), self.title, self._build, self._show)

    def _build(self, results: Frames) -> Frames:
        """Return one row per model and case, means over its seeds, and those of all models as the model `mean`.

        Columns: model, the keys, n (prompts of a run), and each measure with `_low` and `_high`, the lowest and the
        highest of what the row is the mean of.
        """
        rows = results[self.item]
        for measure in self.measures:
            if measure not in set(rows["metric"]):
                raise InputError(f"results of {self.item}: no {measure}; run `make {self.item}` again")
        rows = rows.assign(
            case=rows[self.case_keys].astype(str).agg(" and ".join, axis=1),
            method=pandas.Categorical(rows["method"], order_methods(rows["method"])),
        )
        wide = rows.pivot(index=["model", *self.keys, "n"], columns="metric", values="value").reset_index()
        by_model = self._average(wide.assign(model=wide["model"].map(name_models(wide["model"].unique()))))
        return {"": pandas.concat([by_model, self._average(by_model.assign(model=MEAN))], ignore_index=True)}

    def _show(self, frames: Frames) -> list[Block | str]:
        means = frames[""][lambda frame: frame["model"] == MEAN]
        columns = [Column(name, text) for name, text in self.keys.items()]
        columns += [Column(name, text, "decimal", parts="interval") for name, text in self.measures.items()]
        return [Block(means, columns, self.caption), WORDS["controls"]["note"].format(note=self.note)]

    def _average(self, wide: pandas.DataFrame) -> pandas.DataFrame:
        groups = wide.groupby(["model", *self.keys], observed=True)[["n", *self.measures]]
        bounds = {"low": groups.min(), "high": groups.max()}
        ends = {f"{name}_{end}": frame[name] for name in self.measures for end, frame in bounds.items()}
        return groups.mean().assign(**ends).reset_index()


CONTROLS = {item: Control(item, **WORDS[item]) for item in ("judges", "noise", "shortcuts")}
