"""Long results spread into columns, one row per run and method, with nothing missing and nothing twice."""

import pandas

from llmva.core.errors import InputError
from llmva.core.results import remake
from llmva.paper.names import order_methods

RUN, CELL = ["model", "method"], ["dataset", "metric"]


def spread(
    results: pandas.DataFrame, cells: dict[str, tuple[str, str]], item: str, field: str = "value"
) -> pandas.DataFrame:
    """Return one column per cell (its data set and metric), one row per run and method.

    The index is `model` (the slug, in the order of the results) and `method` (in printed order). `field` is `value`
    or `n`; `item` is for the message that says what to run.

    Raises
    ------
    InputError
        When a cell of a run and method is missing or stands twice.
    """
    wanted = pandas.MultiIndex.from_tuples(cells.values(), names=CELL)
    rows = results[pandas.MultiIndex.from_frame(results[CELL]).isin(wanted)]
    for model, method, _, metric in rows.loc[rows.duplicated(RUN + CELL), RUN + CELL].to_numpy()[:1]:
        raise _error(model, f"{metric} of {method} stands twice", item)
    runs = pandas.MultiIndex.from_product([results["model"].unique(), order_methods(results["method"])], names=RUN)
    # By `n`, which no row is without.
    missing = rows.pivot(index=RUN, columns=CELL, values="n").reindex(index=runs, columns=wanted).isna().stack(CELL)
    for model, method, dataset, metric in missing.index[missing][:1]:
        raise _error(model, f"no {metric} of {method} on {dataset}", item)
    return rows.pivot(index=RUN, columns=CELL, values=field).loc[runs, wanted].set_axis(list(cells), axis=1)


def _error(model: str, problem: str, item: str) -> InputError:
    return InputError(f"results of {model}: {problem}; run {remake(item, model)} again")
