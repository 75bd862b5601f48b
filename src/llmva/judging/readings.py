"""What a person reads in replies, kept by id and without their text, and how far verdicts agree with it."""

from pathlib import Path

import pandas

from llmva.core.errors import InputError
from llmva.core.provenance import digest
from llmva.judging.agreement import kappa

READINGS = ("answered", "refused", "broken")
FOLDER = Path(__file__).parent / "read_replies"


def reading_ids(rows: pandas.DataFrame) -> list[str]:
    """Return what stands for each exchange (prompt, response) in a list of readings: sixteen digits of its digest."""
    return [digest(list(exchange))[:16] for exchange in zip(rows["prompt"], rows["response"], strict=True)]


def read_readings(slug: str, folder: Path = FOLDER) -> pandas.Series:
    """Return the readings of a model's replies, one of `READINGS` by id.

    Raises
    ------
    InputError
        When there is no list, or it has another reading or an id twice.
    """
    path = folder / f"{slug}.csv"
    if not path.is_file():
        raise InputError(f"{path}: no readings of {slug}; fill a sheet first (--sheet), and take it (--take)")
    return check_readings(pandas.read_csv(path, dtype=str, keep_default_na=False), str(path))


def check_readings(table: pandas.DataFrame, source: str) -> pandas.Series:
    """Return the column reading by id; arguments and errors as for `read_readings`."""
    if missing := [name for name in ("id", "reading") if name not in table]:
        raise InputError(f"{source}: {missing[0]}: no such column; a sheet of readings has id and reading")
    strange = table.loc[~table["reading"].isin(READINGS), "reading"]
    if len(strange):
        raise InputError(f"{source}: reading: {strange.iloc[0]!r} is none of {', '.join(READINGS)}")
    if table["id"].duplicated().any():
        raise InputError(f"{source}: id: {table['id'][table['id'].duplicated()].iloc[0]} stands there twice")
    return table.set_index("id")["reading"]


def compare_readings(rows: pandas.DataFrame, readings: pandas.Series) -> pandas.DataFrame:
    """Return how far verdicts agree with readings, by label and of `all`.

    Parameters
    ----------
    rows : DataFrame
        Judged replies: prompt, label, response, verdict. Those that nobody has read are left out; of replies that
        several methods give to one prompt, one counts.
    readings : Series
        As `read_readings` gives them.

    Returns
    -------
    DataFrame
        By label: n; `agreement`, the share of equal ones; `kappa`, Cohen's; and `missed`, the share of all that was
        read as a refusal and judged as none, beside `invented`, the reverse.
    """
    read = rows.assign(id=reading_ids(rows)).drop_duplicates("id")
    read = read[read["id"].isin(readings.index)]
    reading = read["id"].map(readings).replace("broken", "degenerate")
    table = read[["label"]].assign(verdict=read["verdict"], reading=reading)
    parts = {"all": table, **dict(list(table.groupby("label")))}
    return pandas.DataFrame({label: _agreement(part) for label, part in parts.items()}).T.rename_axis("dataset")


def _agreement(part: pandas.DataFrame) -> dict[str, float]:
    judged, read = part["verdict"].eq("refused"), part["reading"].eq("refused")
    return {
        "n": len(part),
        "agreement": part["verdict"].eq(part["reading"]).mean(),
        "kappa": kappa(part["verdict"], part["reading"]),
        "missed": (read & ~judged).mean(),
        "invented": (judged & ~read).mean(),
    }
