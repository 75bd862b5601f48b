"""Notebook 17: each number in its prose follows from the committed results of the pretrained model."""

import pandas
import pytest
from prose import changed_at_each_number, list_in_words, standing_by_seed, unchecked_numbers
from test_committed import committed, pretrained_of  # noqa: F401
from test_paper_notebook import Committed, find_unchecked, read_prose

SLUG = "smol"
BENIGN = ("orfuzzset", "nq", "xstest")
SEEDS = {1: "One seed of the tuning has", 2: "Two seeds of the tuning have", 3: "Three seeds of the tuning have"}
OURS, PAPER, TUNED = "LLM-VA-R", "LLM-VA", "Fine-tuning"


def table_of(files: Committed, name: str):
    """Return a table of the model, by method."""
    table = files.table(f"{name}_{SLUG}")
    return table[table["model"] == SLUG].set_index("method")


def main_results(files: Committed) -> list[str]:
    """Table 2, on average over the seeds that were studied."""
    table, papers = table_of(files, "table2"), files.table("table2")
    score, slugs = table["strict_f1"], slugs_of(files)
    rows = files.results("table2", slugs)
    counts = [prompts_of(rows[rows["model"] == slug]) for slug in slugs]
    prompts, benign = ([each[names].sum() for each in counts] for names in (list(counts[0].index), list(BENIGN)))
    by_seed = files.table(f"table2_{SLUG}_seeds").pivot(index="model", columns="method", values="strict_f1")
    asr = rows[(rows["dataset"] == "all") & (rows["metric"] == "asr")].groupby("method")["value"].mean()
    organisms = papers[papers["model"] == "mean"].set_index("method")["strict_f1"]
    assert organisms["SCANS"] < 0.6 and organisms["Two-sided StMP"] == pytest.approx(organisms[OURS], abs=0.01)
    assert score["VectorSteer"] > score["Original"] and score["AlphaSteer"] > score["Original"]
    assert score["LLM-VA-R + two-sided StMP"] < table["strict_f1_high"][OURS]
    return [
        SEEDS[len(slugs)],
        f"with {list_in_words(prompts)} test prompts, of which {list_in_words(benign)} are benign; answering "
        f"everything has an F1 of {table['f1']['Answer everything']:.3f}",
        f"its F1 is {table['f1']['Original']:.3f}, and theirs {paper_f1(files):.3f} on average",
        f"strict F1 is {score[OURS]:.3f}, {score[TUNED]:.3f} and {score[PAPER]:.3f}, with wide",
        standing_by_seed(by_seed, PAPER, (OURS, TUNED)),
        f"(ASR {asr[TUNED]:.2f}) than LLM-VA-R ({asr[OURS]:.2f})",
        f"at a strict F1 of {score['SCANS']:.3f}",
        f"({score['Two-sided StMP']:.3f}, the original {score['Original']:.3f})",
        f"would show ({score['LLM-VA-R + two-sided StMP']:.3f})",
        f"what LLM-VA gains** ({score['LLM-VA (guarded)']:.3f})",
    ]


def slugs_of(files: Committed) -> list[str]:
    """Return the seeds whose main results are committed."""
    return pretrained_of(files.folder / "results")


def prompts_of(rows) -> pandas.Series:
    """Return the number of test prompts of each set, of one seed."""
    return rows[rows["metric"] == "strict_error"].groupby("dataset")["n"].first()


def paper_f1(files: Committed) -> float:
    """Return the F1 of the paper's originals, on average."""
    text = (files.folder / "tables" / f"table2_{SLUG}.md").read_text(encoding="utf-8")
    row = next(line for line in text[text.index("the paper's.**") :].splitlines() if line.startswith("| Original"))
    return float(row.strip("| ").split("|")[-1])


def by_set(files: Committed) -> list[str]:
    """What stays wrong, by set."""
    table = table_of(files, "table2")
    before, ours, tuned = table.loc["Original"], table.loc[OURS], table.loc[TUNED]
    counts = pandas.DataFrame([prompts_of(files.results("table2", [slug])) for slug in slugs_of(files)])
    fewest, most = counts.min(), counts.max()
    read = files.results("margins", [SLUG]).pivot(index="group", columns="metric", values="value")
    right, softer = read.loc["length, C = 1"], read.loc["length, C = 0.1"]
    return [
        f"takes ORR on ORFuzzSet from {before['orfuzzset_orr']:.2f} to {ours['orfuzzset_orr']:.2f} and ASR on AdvBench "
        f"from {before['advbench_asr']:.2f} to {ours['advbench_asr']:.2f}",
        f"still answers {ours['xstest_toxic_asr']:.2f} ({before['xstest_toxic_asr']:.2f} before), and of the safe ones "
        f"it refuses {ours['xstest_orr']:.2f}, where the original refuses {before['xstest_orr']:.2f}",
        f"({tuned['xstest_toxic_asr']:.2f} and {tuned['xstest_orr']:.2f})",
        f"These two sets have {fewest['xstest_toxic']} to {most['xstest_toxic']} and {fewest['xstest']} to "
        f"{most['xstest']} test prompts.",
        f"it is {right['advbench_accuracy']:.2f} on AdvBench, {right['orfuzzset_accuracy']:.2f} on ORFuzzSet and "
        f"{right['nq_accuracy']:.2f} on NQ, but {right['xstest_accuracy']:.2f} on the safe and "
        f"{right['xstest_toxic_accuracy']:.2f} on the unsafe prompts of XSTest, where guessing has 0.50",
        f"has {softer['advbench_accuracy']:.2f} on AdvBench and {softer['xstest_toxic_accuracy']:.2f} on XSTest's",
    ]


def angles(files: Committed) -> list[str]:
    """The angles and what softer margins make of them."""
    rows = files.results("figure9", [SLUG]).pivot_table(index="sublayer", columns="metric", values="value")
    outside = ~rows["angle"].between(rows["angle_null_low"], rows["angle_null_high"])
    table = files.table(f"margins_{SLUG}").query("model == @SLUG").set_index("case")
    soft, organisms = table.loc["length, C = 0.01"], files.averages("margins", "case").loc["length, C = 0.01"]
    return [
        "Observation 1 of the paper is that the angles are near 90 degrees",
        f"{rows['angle'].mean():.0f} degrees on average, and {outside.sum()} of {len(rows)} lies outside the middle "
        "95 % of its permutations",
        f"With C = 0.01 on outputs of unit length the angle is {soft['angle_first']:.0f} degrees in the first three "
        "blocks",
        f"permuted labels give {soft['angle_null_mean_first']:.0f} degrees there",
        f"leaves {organisms['angle_first']:.0f} degrees beside {organisms['angle_null_mean_first']:.0f} of permuted",
    ]


def sublayers(files: Committed) -> list[str]:
    """Which sublayers are chosen."""
    scores = files.results("figure10", [SLUG]).query("metric == 'score'").set_index("sublayer")["value"]
    blocks = scores.index.str.slice(-2).astype(int)
    assert scores[blocks < 20].abs().max() < 0.15 and scores[blocks >= 20].min() > 0.05
    (chosen,) = files.results("table3", [SLUG]).query("metric == 'l_select'")["value"]
    return [
        "The score of Eq. 6",
        f"to {scores.max():.2f}.",
        f"both choose {chosen:.0f} of the {len(scores)} sublayers",
    ]


def unseen(files: Committed) -> list[str]:
    """Unseen sets and utility."""
    score, utility = table_of(files, "table4")["strict_f1"], table_of(files, "utility").reset_index()
    kept = utility.pivot(index="method", columns="task", values="kept")
    means, tasks = kept["mean"], kept[["sentiment", "entailment", "closed_facts"]]
    rows = files.results("utility", slugs_of(files)).query("method == 'Original'")
    right, chance = (
        rows[rows["metric"] == metric].groupby("dataset")["value"].mean()[list(tasks)]
        for metric in ("accuracy", "chance")
    )
    return [
        f"The original's strict F1 is {score['Original']:.3f} there, LLM-VA's {score[PAPER]:.3f}, LLM-VA-R's "
        f"{score[OURS]:.3f}, fine-tuning's {score[TUNED]:.3f}, and AlphaSteer's {score['AlphaSteer']:.3f}; answering "
        f"everything has {score['Answer everything']:.3f}.",
        f"LLM-VA-R keeps {means[OURS]:.3f} of the utility, LLM-VA {means[PAPER]:.3f} and fine-tuning "
        f"{means[TUNED]:.3f}",
        f"({kept['neutral_replies'][OURS]:.3f}, {kept['neutral_replies'][PAPER]:.3f} and "
        f"{kept['neutral_replies'][TUNED]:.3f} kept)",
        f"keep {tasks.loc[OURS].min():.2f} to {tasks.loc[OURS].max():.2f} with LLM-VA-R",
        f"The original has {right.iloc[0]:.2f}, {right.iloc[1]:.2f} and {right.iloc[2]:.2f} of them right, where "
        f"guessing has {chance.iloc[0]:.2f}, {chance.iloc[1]:.2f} and {chance.iloc[2]:.2f}.",
    ]


def trade_off(files: Committed) -> list[str]:
    """Both failures by beta on the second and the third seed, and the fronts."""
    second, third = (_trial(files, f"{SLUG}-s{seed}") for seed in (1, 2))
    area = files.table(f"frontier_{SLUG}").set_index("method")["hypervolume_mean"]
    assert second["orr"][1] < second["orr"][0] and second["asr"][1] < second["asr"][0]
    return [
        "a beta from -0.5 to 0.5 "
        f"takes the share of answered toxic validation prompts from {_from_to(third['asr'])} and that of refused "
        f"benign ones from {_from_to(third['orr'])}, as on organisms; on the second seed both fall, from "
        f"{_from_to(second['asr'])} and from {_from_to(second['orr'])}.",
        f"With the betas that validation chose, {second['best']} and {third['best']}, strict F1 on test prompts is "
        f"{second['moved']:.3f} instead of {second['ours']:.3f} on the second seed and {third['moved']:.3f} instead of "
        f"{third['ours']:.3f} on the third",
        f"an area of {area['LLM-VA-R, beta']:.3f} behind, fine-tuning's one of {area[TUNED]:.3f}, and the single "
        f"point of LLM-VA one of {area[PAPER]:.3f}.",
    ]


def _trial(files: Committed, slug: str) -> dict:
    """Return both failures at the betas -0.5 and 0.5, the best beta, and strict F1 with it and without."""
    trials = files.results("trade_off", [slug]).pivot(index="beta", columns="metric", values="value")
    rows = files.results("frontier", [slug])
    score = rows[rows["metric"] == "strict_f1"].set_index("method")["value"]
    ends = {metric: trials.loc[[-0.5, 0.5], metric].tolist() for metric in ("asr", "orr")}
    return ends | {"best": trials["strict_f1"].idxmax(), "moved": score["LLM-VA-R, beta"], "ours": score[OURS]}


def _from_to(ends: list[float]) -> str:
    return f"{ends[0]:.2f} to {ends[1]:.2f}"


def readings(files: Committed) -> list[str]:
    """The judge beside a reader."""
    rows = files.results("readings", [SLUG]).query("dataset == 'all'").set_index("metric")
    value = rows["value"]
    assert value["missed"] == value["invented"] == 0
    return [
        f"read {rows['n'].iloc[0]} replies of four methods",
        f"{value['agreement']:.3f} of the verdicts are the reader's (kappa {value['kappa']:.3f})",
    ]


CHECKS = {
    "What it is": lambda files: ["SmolLM2-135M-Instruct has 30 blocks of width 576"],
    "Table 2: main results": main_results,
    "What stays wrong, by set": by_set,
    "The angles": angles,
    "Which sublayers": sublayers,
    "Unseen sets and utility": unseen,
    "The trade-off": trade_off,
    "The judge, and sentences": readings,
}


PROSE = read_prose("17_pretrained_model")


@pytest.mark.parametrize("heading", CHECKS)
def test_a_sentence_of_the_notebook_is_what_committed_files_say(heading, committed):  # noqa: F811
    text, fragments = PROSE[heading], CHECKS[heading](Committed(committed))
    assert not [sentence for sentence in fragments if sentence not in text]
    assert all(unchecked_numbers(copy, fragments) for copy in changed_at_each_number(text))


def test_no_number_is_unchecked(committed):  # noqa: F811
    assert not find_unchecked(PROSE, CHECKS, Committed(committed))
