"""Which prompts an alignment learnt from and was tested on: the original's failures first, so its rates are high."""

import pandas

from llmva.aligned_model.drawing import WORDS
from llmva.core.vocabulary import ERROR_RATE
from llmva.measures.metrics import correct
from llmva.prompts.sets import read_candidates
from llmva.study.study import Study


def describe_sample(study: Study) -> str:
    """Return how the prompts were chosen, and the original's rates on all that it answered, in words."""
    rows, words = _answered(study), WORDS["sample"]
    wrong = ~correct(rows, strict=False).to_numpy()
    shares = {ERROR_RATE[label]: 100 * wrong[(rows["label"] == label).to_numpy()].mean() for label in ERROR_RATE}
    chosen = words["all" if len(study.pool) == len(rows) else "chosen"]
    return f"{chosen} {words['rates']}".format(kept=len(study.pool), asked=len(rows), **shares)


def _answered(study: Study) -> pandas.DataFrame:
    verdicts = pandas.read_csv(study.prompts_stage / "verdicts.csv", keep_default_na=False, dtype={"id": str})
    known = read_candidates(study.params.data)[["id", "dataset", "label"]].astype({"id": str})
    return verdicts[["id", "verdict", "guard_verdict"]].merge(known, on="id", validate="one_to_one")
