"""What a further alignment does to the prompts of the one before: gains on new threats may be losses on old ones."""

import pandas

from llmva.core import paths
from llmva.core.paths import anchored
from llmva.core.store import read_manifest
from llmva.edits.edited_model import EditedModel
from llmva.edits.log import EditLog
from llmva.models.sources import find_base, read_study
from llmva.study.study import PROMPTS_STAGE, Study


def examine_earlier(study: Study, log: EditLog) -> dict[str, pandas.DataFrame] | None:
    """Answer the earlier alignment's test prompts before and after this one's edits, judged by this study's judge.

    Returns
    -------
    dict of str to DataFrame, or None
        Examined rows of `original`, which is the model as it was aligned before, and of `aligned`. None of a model that
        was not aligned before; without rows where its prompts are not on this machine any more.
    """
    model = study.params.model
    if find_base(model) == model:
        return None
    folder = anchored(model)
    before = read_study(read_manifest(folder), folder).get("slug")
    pool = paths.RUNS / (before or "") / PROMPTS_STAGE / "prompts.csv"
    if not before or not pool.is_file():
        return {}
    prompts = pandas.read_csv(pool, dtype=str, keep_default_na=False)
    # What this alignment has learnt from would show no loss.
    learnt = study.pool.loc[study.pool["split"] != "test", "prompt"]
    prompts = prompts[prompts["split"].eq("test") & ~prompts["prompt"].isin(learnt)].reset_index(drop=True)
    rows = {"original": study.examiner.examine(prompts).rows}
    with EditedModel(study.chat_model.writers) as edited:
        edited.apply(log)
        rows["aligned"] = study.examiner.examine(prompts).rows
    return rows
