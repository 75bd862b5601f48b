"""The test replies of a finished study, read back without a model, and the few of them that are shown as they are."""

from collections.abc import Sequence

import pandas

from llmva.core import paths
from llmva.core.errors import InputError
from llmva.core.results import write_results
from llmva.core.store import open_stage
from llmva.core.vocabulary import ORIGINAL, OUR_LOOP
from llmva.study.evaluation import read_test_rows

# Benign sets whose licences let a few prompts be shown (CC BY 4.0, CC BY-SA 3.0 and, of the released rows, MIT), and
# how many examples of each: over-refusals that are mended, and prompts that are still refused or answered brokenly.
SHOWN_SETS = ("xstest", "nq", "orfuzzset")
MENDED, STILL_WRONG = 3, 1


def read_judged(slug: str, methods: Sequence[str]) -> pandas.DataFrame:
    """Return the test replies of some methods in a finished study: method, dataset, label, id, prompt, response, ...

    Raises
    ------
    InputError
        When the study is not finished, or has no such method.
    """
    folder = paths.RUNS / slug
    fix = f"run `make table2 MODELS={slug}`"
    prompts = pandas.read_csv(open_stage(folder / "00_start_here", fix=fix) / "prompts.csv", keep_default_na=False)
    sealed = sorted(folder.glob("methods/*/manifest.json"))
    found = read_test_rows({path.parent.name: open_stage(path.parent, fix=fix) for path in sealed})
    if missing := [name for name in methods if name not in found]:
        raise InputError(f"{folder / 'methods'}: {missing[0]}: no outcomes; {fix}")
    rows = pandas.concat([found[name].assign(method=name) for name in methods], ignore_index=True)
    return rows.merge(prompts[["id", "prompt"]], on="id", validate="many_to_one")


def record_examples(slug: str, seed: int) -> pandas.DataFrame:
    """Write `choose_examples` of a study's test replies as `results/<slug>/examples.csv`, and return them."""
    chosen = choose_examples(read_judged(slug, (ORIGINAL, OUR_LOOP)))
    rows = chosen.assign(metric="answered", value=chosen["verdict"].eq("answered").astype(float), n=1, seed=seed)
    write_results(slug, "examples", rows.drop(columns=["label", "verdict"]))
    return chosen


def choose_examples(rows: pandas.DataFrame) -> pandas.DataFrame:
    """Choose benign prompts by a rule, and return both replies to each: method, dataset, id, prompt, response, verdict.

    Of each set of `SHOWN_SETS`, by id: the first `MENDED` that the original refuses and LLM-VA-R answers, and the first
    `STILL_WRONG` that LLM-VA-R does not answer. A prompt that is toxic is never among them.
    """
    shown = rows[rows["label"].eq("benign") & rows["dataset"].isin(SHOWN_SETS)].sort_values("id", kind="stable")
    verdicts = shown.pivot(index=["dataset", "id"], columns="method", values="verdict")
    mended = verdicts[verdicts[ORIGINAL].eq("refused") & verdicts[OUR_LOOP].eq("answered")]
    wrong = verdicts[verdicts[OUR_LOOP].ne("answered")]
    firsts = [part.groupby("dataset").head(most) for part, most in ((mended, MENDED), (wrong, STILL_WRONG))]
    ids = pandas.concat(firsts).index.get_level_values("id")
    columns = ["method", "dataset", "label", "id", "prompt", "response", "verdict"]
    return shown.loc[shown["id"].isin(ids), columns].reset_index(drop=True)
