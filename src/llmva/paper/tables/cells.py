"""The rows of every table: methods in order, seeds of one model, and results spread into columns."""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import pandas

from llmva.core.errors import InputError
from llmva.core.params import SEED_SUFFIX
from llmva.core.results import is_organism

ORIGINAL, REFERENCE = "Original", "LLM-VA"
MEAN = "mean"
# Methods that are not named here stand behind the last baseline.
BASELINES = (
    ORIGINAL,
    "Answer everything",
    "Refuse everything",
    "Refusal ablation",
    "VectorSteer",
    "AlphaSteer",
    "AlphaSteer+",
    "SCANS",
    "CAST",
    "Fine-tuning",
)
OURS = ("LLM-VA (released code)", "LLM-VA (released code, strict choice)", REFERENCE, "LLM-VA (guarded)", "LLM-VA-R")
# Rules that read no prompt: each wins one kind of rate by losing the other.
CONSTANT = ("Answer everything", "Refuse everything")
VARIANT = re.compile(r"(?P<method>.+) \([^()]+\)")
KEY = ["model", "method", "dataset", "metric"]


class Cell(NamedTuple):
    """Where a column's number stands in long results: data set, metric, and which of `value` and `n`."""

    dataset: str
    metric: str
    field: str = "value"


def order_methods(methods: Iterable[str]) -> list[str]:
    """Return methods in the printed order, a variant `X (variant)` right after X, each once."""

    def place(method: str) -> tuple:
        plain = _plain_name(method)
        if plain in OURS:
            return 2, OURS.index(plain), "", method != plain, method
        if plain in BASELINES:
            return 0, BASELINES.index(plain), "", method != plain, method
        return 1, 0, plain, method != plain, method

    return sorted(set(methods), key=place)


def is_variant(method: str) -> bool:
    """Tell a further variant of a method, which stands in the CSV only, from the methods that are printed."""
    return _plain_name(method) != method


def printed_rows(frame: pandas.DataFrame) -> pandas.DataFrame:
    """Return the rows that are printed: those of no variant."""
    return frame[~frame["method"].map(is_variant)].reset_index(drop=True)


def name_models(slugs: Iterable[str]) -> dict[str, str]:
    """Return each slug's model: the base name where several seeds of it are there, else the slug itself."""
    bases = {slug: SEED_SUFFIX.sub("", slug) for slug in slugs}
    counts = pandas.Series(list(bases.values())).value_counts()
    return {slug: base if counts[base] > 1 else slug for slug, base in bases.items()}


def add_seeds(slugs: Sequence[str], seeds: int) -> list[str]:
    """Return the slugs, each organism without a seed suffix followed by `-s1` to `-s<seeds - 1>`."""
    if seeds < 1:
        raise InputError(f"seeds: is {seeds}; it must be 1 (the organism itself) or more")
    found = []
    for slug in slugs:
        seeded = is_organism(slug) and not SEED_SUFFIX.search(slug)
        found += [slug, *(f"{slug}-s{seed}" for seed in range(1, seeds if seeded else 1))]
    return list(dict.fromkeys(found))


def leave_out(item: str, slugs: Sequence[str], present: Sequence[str]) -> list[str]:
    """Return the slugs that are present, and print which of the others an item goes without."""
    if missing := sorted(set(slugs) - set(present)):
        print(f"{item}: without {', '.join(missing)}, which have no results of it yet")
    return list(present)


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


def _plain_name(method: str) -> str:
    match = VARIANT.fullmatch(method)
    return method if method in OURS or not match else match["method"]


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
