"""The rows of every table: methods in order, seeds of one model, and results spread into columns."""

from typing import NamedTuple

import pandas

from llmva.core.errors import InputError
from llmva.paper.names import order_methods

KEY = ["model", "method", "dataset", "metric"]


class Cell(NamedTuple):
    """Where a column's number stands in long results: data set, metric, and which of `value` and `n`."""

    dataset: str
    metric: str
    field: str = "value"


def spread(results: pandas.DataFrame, cells: dict[str, Cell], item: str) -> pandas.DataFrame:
    """Return one row per run and method, one column per cell; nothing may be missing or stand twice.

    Parameters
    ----------
    results : DataFrame
        Long results (see `results.COLUMNS`).
    cells : dict of str to Cell
        Where each column's numbers stand.
    item : str
        The item, for the message that says what to run.

    Returns
    -------
    DataFrame
        Indexed by `model` (the slug, in the order given) and `method` (in printed order).
    """
    wanted = {Cell(cell.dataset, cell.metric) for cell in cells.values()}
    rows = results[[(*pair, "value") in wanted for pair in zip(results["dataset"], results["metric"], strict=True)]]
    _refuse_duplicates(rows, item)
    index = pandas.MultiIndex.from_product(
        [results["model"].unique(), order_methods(results["method"])], names=["model", "method"]
    )
    found = dict(zip(rows[KEY].itertuples(index=False, name=None), rows[["value", "n"]].to_numpy(), strict=True))
    _refuse_gaps(found, index, cells, item)
    columns = {
        name: [found[(*run, cell.dataset, cell.metric)][("value", "n").index(cell.field)] for run in index]
        for name, cell in cells.items()
    }
    return pandas.DataFrame(columns, index=index)


def _refuse_duplicates(rows: pandas.DataFrame, item: str) -> None:
    twice = rows.loc[rows.duplicated(KEY), KEY]
    if len(twice):
        model, method, _, metric = twice.iloc[0]
        raise InputError(
            f"results of {model}: {metric} of {method} stands twice; run `make {item} MODELS={model}` again"
        )


def _refuse_gaps(found: dict, index: pandas.MultiIndex, cells: dict[str, Cell], item: str) -> None:
    for model, method in index:
        for cell in cells.values():
            if (model, method, cell.dataset, cell.metric) not in found:
                raise InputError(
                    f"results of {model}: no {cell.metric} of {method} on {cell.dataset}; "
                    f"run `make {item} MODELS={model}` again"
                )
