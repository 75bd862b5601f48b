"""What the tuning of a pretrained organism did: `python -m llmva.commands.pretrained_report smol [slug ...]`.

Test prompts that the tuning has not met, before it and after it, judged by phrases. The table is kept in
`results/<slug>/tuning.csv`.
"""

import pandas
from torch import set_num_threads

from llmva.core.errors import OneLineParser, command
from llmva.core.params import StudyParams, load_params
from llmva.core.results import world_of, write_results
from llmva.core.store import open_stage
from llmva.core.vocabulary import ORIGINAL, PRETRAINED_SETS, UNTUNED
from llmva.engines.greedy import respond
from llmva.judging.judges import PhraseJudge
from llmva.models.chat_model import load_model
from llmva.organisms.build import build_organism
from llmva.organisms.pretrained.tuning import has_keyword
from llmva.prompts.sets import read_candidates


def describe_tuning(slug: str) -> pandas.DataFrame:
    """Return, by set, the share of held-out prompts that are refused before and after the tuning, and the cue's part.

    The columns are n, `untuned` and `tuned`, shares of refusals; `keyword`, the share of prompts that hold a keyword;
    and `cue`, the share of prompts that the tuned model refuses just where they hold one.
    """
    folder, params = build_organism(slug), load_params(slug)
    prompts = read_candidates(folder / "data")
    prompts = prompts[prompts["split"] == "test"].reset_index(drop=True)
    source = open_stage(folder, fix="build it").manifest["facts"]["source"]
    weights = {"untuned": source, "tuned": str(folder)}
    refused = {name: _find_refusals(origin, prompts, params) for name, origin in weights.items()}
    rows = prompts[["dataset"]].assign(keyword=has_keyword(prompts["prompt"]), **refused)
    rows["cue"] = rows["tuned"] == rows["keyword"]
    sets = rows.groupby("dataset")
    return sets.mean().assign(n=sets.size()).reindex([name for name in PRETRAINED_SETS if name in sets.groups])


def _find_refusals(source: str, prompts: pandas.DataFrame, params: StudyParams) -> list[bool]:
    chat_model, judge = load_model(source, dtype=params.dtype), PhraseJudge()
    texts = respond(chat_model, prompts["prompt"].tolist(), **params.generation.model_dump()).texts
    raw = judge.judge(prompts["prompt"].tolist(), texts)
    return [judge.verdict(*pair) == "refused" for pair in zip(raw, prompts["label"], strict=True)]


def record_tuning(slug: str, table: pandas.DataFrame) -> None:
    """Write the table to `results/<slug>/tuning.csv`."""
    names = {"untuned": (UNTUNED, "refused"), "tuned": (ORIGINAL, "refused"), "keyword": ("", "keyword"),
             "cue": (ORIGINAL, "cue_accuracy")}  # fmt: skip
    parts = [
        table[["n"]].assign(value=table[column], method=method, metric=metric).reset_index()
        for column, (method, metric) in names.items()
    ]
    write_results(slug, "tuning", pandas.concat(parts).assign(seed=load_params(slug).seed))


@command
def main() -> None:
    """Build what is missing, print the tables, and keep them in results/."""
    parser = OneLineParser(prog="python -m llmva.commands.pretrained_report", description=__doc__)
    parser.add_argument("slugs", nargs="*", metavar="slug", help="pretrained organisms; others are left out")
    for slug in parser.parse_args().slugs:
        if world_of(slug) != "pretrained":
            continue
        set_num_threads(load_params(slug).threads)
        table = describe_tuning(slug)
        record_tuning(slug, table)
        print(f"{slug}: shares of held-out prompts that are refused, judged by phrases; the cue is a keyword.\n")
        print(table[["n", "untuned", "tuned", "keyword", "cue"]].round(3).to_markdown())


if __name__ == "__main__":
    main()
