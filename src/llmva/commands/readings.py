"""How far the judge of a finished study agrees with a person: `python -m llmva.commands.readings smol`.

`--sheet FILE` writes replies to read, with an empty column `reading`; `--take FILE` keeps what a person wrote there,
by id and without any text. Without either, the readings that are kept are compared with the judge's verdicts, and the
agreement goes to `results/<slug>/readings.csv`; a few benign prompts with both replies go to `examples.csv` beside it.
"""

from pathlib import Path

import pandas

from llmva.core.errors import OneLineParser, command
from llmva.core.params import load_params
from llmva.core.paths import write_atomically, write_texts
from llmva.core.provenance import random_generator
from llmva.core.results import write_results
from llmva.core.vocabulary import ORIGINAL, OUR_LOOP, PAPER_LOOP
from llmva.judging.readings import FOLDER, check_readings, compare_readings, read_readings, reading_ids
from llmva.study.replies import read_judged, record_examples

METHODS = (ORIGINAL, "Fine-tuning", PAPER_LOOP, OUR_LOOP)
SHEET = 200


def draw_sheet(rows: pandas.DataFrame, size: int = SHEET) -> pandas.DataFrame:
    """Draw different replies to read, as many of each method and label, in an order that tells neither."""
    sheet = rows.assign(id=reading_ids(rows)).drop_duplicates("id").sort_values("id", kind="stable")
    groups = sheet.sample(frac=1, random_state=random_generator(0, "readings")).groupby(["method", "label"])
    drawn = groups.head(-(-size // groups.ngroups))
    return drawn.sort_values("id", kind="stable")[["id", "prompt", "response"]].assign(reading="")


@command
def main() -> None:
    """Write a sheet, take one, or compare."""
    parser = OneLineParser(prog="python -m llmva.commands.readings", description=__doc__)
    parser.add_argument("slug")
    parser.add_argument("--sheet", type=Path, metavar="FILE", help="write replies to read; keep the file to yourself")
    parser.add_argument("--take", type=Path, metavar="FILE", help="keep the readings of a filled sheet")
    options = parser.parse_args()
    if options.take:
        table = pandas.read_csv(options.take, dtype=str, keep_default_na=False)
        kept = check_readings(table, str(options.take)).sort_index().reset_index()
        write_atomically(FOLDER / f"{options.slug}.csv", kept.to_csv(index=False, lineterminator="\n"))
    rows = read_judged(options.slug, METHODS)
    if options.sheet:
        write_texts(options.sheet, draw_sheet(rows))
        return
    table = compare_readings(rows, read_readings(options.slug))
    seed = load_params(options.slug).seed
    long = table.reset_index().melt(["dataset", "n"], var_name="metric").astype({"n": int})
    write_results(options.slug, "readings", long.assign(method="", seed=seed))
    record_examples(options.slug, rows, seed)
    print(table.round(3).to_markdown())


if __name__ == "__main__":
    main()
