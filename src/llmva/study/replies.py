"""The test replies of a finished study, read back without a model, and the few of them that are shown as they are."""

from collections.abc import Sequence

import pandas

from llmva.core import paths
from llmva.core.errors import InputError
from llmva.core.results import write_results
from llmva.core.store import open_stage
from llmva.core.vocabulary import ORIGINAL, OUR_LOOP
from llmva.study.evaluation import read_test_rows

# Benign sets of which a few prompts may be shown, by their licences (CC BY 4.0 and CC BY-SA 3.0) and by what they say:
# ORFuzzSet quotes harmful sentences.
SHOWN_SETS = ("xstest", "nq")
# Examples of each set: over-refusals that are mended, prompts that are answered before and after, and wrong ones.
MENDED, KEPT, WRONG = 3, 1, 2


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
    # Of all but the constants, which say nothing.
    said = sorted(folder.glob("methods/*/responses.csv"))
    found = read_test_rows({path.parent.name: open_stage(path.parent, fix=fix) for path in said})
    if missing := [name for name in methods if name not in found]:
        raise InputError(f"{folder / 'methods'}: {missing[0]}: no outcomes; {fix}")
    rows = pandas.concat([found[name].assign(method=name) for name in methods], ignore_index=True)
    return rows.merge(prompts[["id", "prompt"]], on="id", validate="many_to_one")


def record_examples(slug: str, judged: pandas.DataFrame, seed: int) -> pandas.DataFrame:
    """Write `choose_examples` of test replies, as `read_judged` gives them, as `results/<slug>/examples.csv`."""
    chosen = choose_examples(judged[judged["method"].isin([ORIGINAL, OUR_LOOP])])
    rows = chosen.assign(metric="answered", value=chosen["verdict"].eq("answered").astype(float), n=1, seed=seed)
    write_results(slug, "examples", rows.drop(columns=["label", "verdict"]))
    return chosen


def choose_examples(rows: pandas.DataFrame) -> pandas.DataFrame:
    """Choose benign prompts by a rule, and return both replies to each: method, dataset, id, prompt, response, verdict.

    Of each set of `SHOWN_SETS`, by id: the first `MENDED` that the original refuses and LLM-VA-R answers, the first
    `KEPT` that both answer, and the first `WRONG` that LLM-VA-R does not answer. No toxic prompt is ever among them.
    """
    shown = rows[rows["label"].eq("benign") & rows["dataset"].isin(SHOWN_SETS)].sort_values("id", kind="stable")
    verdicts = shown.pivot(index=["dataset", "id"], columns="method", values="verdict")
    before, after = verdicts[ORIGINAL], verdicts[OUR_LOOP].eq("answered")
    fates = ((before.eq("refused") & after, MENDED), (before.eq("answered") & after, KEPT), (~after, WRONG))
    firsts = [verdicts[fate].groupby("dataset").head(most) for fate, most in fates]
    ids = pandas.concat(firsts).index.get_level_values("id")
    columns = ["method", "dataset", "label", "id", "prompt", "response", "verdict"]
    return shown.loc[shown["id"].isin(ids), columns].reset_index(drop=True)
