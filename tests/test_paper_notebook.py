"""Notebook 20: each number in its prose is the committed tables', or follows from results/.

`CHECKS` lists, by the heading of a cell, which sentences are held to what. Whatever other number stands in a cell
makes `test_no_number_is_unchecked` fail, and so does a number that changes in the prose or in a table.
"""

from shutil import copytree

import nbformat
import numpy
import pandas
import pytest
from prose import changed_at_each_number, count_in_words, unchecked_numbers
from test_committed import BASES, committed  # noqa: F401

from llmva.core.paths import NOTEBOOKS
from llmva.core.vocabulary import SAFETY_SETS

RUNS = [f"{base}{seed}" for base in BASES for seed in ("", "-s1", "-s2")]


class Committed:
    """The committed tables and results."""

    def __init__(self, folder):
        self.folder = folder

    def table(self, name: str) -> pandas.DataFrame:
        """Return a table as it is."""
        return pandas.read_csv(self.folder / "tables" / f"{name}.csv")

    def averages(self, name: str, index: str = "method") -> pandas.DataFrame:
        """Return a table's averages over models."""
        table = self.table(name)
        return table[table["model"] == "mean"].set_index(index)

    def kept(self, method: str, task: str = "mean") -> float:
        """Return the share of a task that a method keeps on average."""
        return self.averages("utility", ["method", "task"]).loc[(method, task), "kept"]

    def results(self, item: str, slugs: list[str]) -> pandas.DataFrame:
        """Return an item's results of several models."""
        return pandas.concat([pandas.read_csv(self.folder / "results" / slug / f"{item}.csv") for slug in slugs])

    def by(self, key: str, item: str, slug: str) -> pandas.DataFrame:
        """Return an item's results of one model: a row per value of a key column, a column per metric."""
        rows = self.results(item, [slug]).dropna(subset=[key])
        return rows.pivot_table(index=key, columns="metric", values="value", aggfunc="mean")


def angles(files: Committed) -> list[str]:
    """Figure 9's angles beside the middle 95 % of their own run's permutations."""
    rows = files.results("figure9", RUNS).pivot_table(index=["model", "sublayer"], columns="metric", values="value")
    below, above = rows["angle"] < rows["angle_null_low"], rows["angle"] > rows["angle_null_high"]
    assert rows[["angle_random_low", "angle_random_high"]].mean().between(75, 105).all()
    # The middle 95 % of n draws ends at order statistic 1 + 0.025 (n - 1), of n + 1 equally likely gaps.
    chance = 2 * (1 + 0.025 * 49) / 51
    return [
        "near 90 degrees as a sign",
        "Here they are near 90 too",
        f"Of the {len(rows)} angles of single runs, {below.sum() + above.sum()} lie outside the middle 95 % of their "
        f"own run's 50 permutations, {below.sum()} of them below it.",
        f"By chance about {chance * len(rows):.0f} would, since a new draw leaves the middle 95 % of 50 in "
        f"{100 * chance:.1f} % of all cases",
        f"On average the angle is {rows['angle'].mean():.0f} degrees, and that of permuted labels "
        f"{rows['angle_null_mean'].mean():.0f}: the two vectors are a little less orthogonal",
    ]


def marks(files: Committed) -> list[str]:
    """Table 1's marks."""
    table = files.table("table1").set_index("method").iloc[:, :4]
    assert (table.loc[["LLM-VA", "LLM-VA-R"]] == "yes").all(axis=None)
    assert not (table.loc[["SCANS", "CAST"], ["over_refusal_mitigated", "jailbreak_mitigated"]] == "yes").any(axis=None)
    assert table.loc["VectorSteer", ["over_refusal_mitigated", "jailbreak_mitigated"]].tolist() == ["yes", "no"]
    return ["LLM-VA has all four marks, as in the paper, and so has LLM-VA-R."]


def main_results(files: Committed) -> list[str]:
    """Table 2, its single runs, the unseen sets of Table 4, and other seeds of the study."""
    seeds, table, unseen = files.table("table2_seeds"), files.averages("table2"), files.averages("table4")
    scores = seeds[seeds["method"] == "LLM-VA"].set_index("model")["strict_f1"]
    high, middle = scores[scores > 0.9], scores[scores.between(0.7, 0.9)]
    families = scores.groupby(scores.index.str.replace(r"-s\d+$", "", regex=True))
    draws = {base: [score_of_loop(files, f"tiny-{base}{end}") for end in ("", "-draw1", "-draw2")]
             for base in ("llama", "qwen2")}  # fmt: skip
    llama, qwen = (f"{first:.3f}, {second:.3f} and {third:.3f}" for first, second, third in draws.values())
    released, strict = ("LLM-VA (released code)", "LLM-VA (released code, strict choice)")
    broken = seeds[seeds["method"] == released]["degenerate"]
    assert len(scores) == 18 == len(high) + len(middle) + 1
    assert (families.std() > families.mean().std()).sum() >= 5
    assert table["run_p"]["AlphaSteer+"] > 0.05 > table["run_p"]["Fine-tuning"]
    assert table["degenerate"]["LLM-VA (guarded)"] < table["degenerate"]["LLM-VA"]
    constant, vector, ablation = table["strict_f1"][["Answer everything", "VectorSteer", "Refusal ablation"]]
    assert ablation < constant and vector == pytest.approx(constant, abs=0.01)
    assert unseen["strict_f1"][strict] == pytest.approx(unseen["strict_f1"]["LLM-VA"], abs=0.02)
    return [
        f"In {count_in_words(len(high))} of the eighteen runs it reaches a strict F1 above 0.9, in "
        f"{count_in_words(len(middle))} more one of {middle.min():.2f} to {middle.max():.2f}, and in the other "
        f"{count_in_words(18 - len(high) - len(middle))} it ends at {scores.min():.2f}.",
        f"(a standard deviation of {families.std().min():.2f} to {families.std().max():.2f} against "
        f"{families.mean().std():.2f})",
        f"it ends at {llama} on tiny-llama, and at {qwen} on tiny-qwen2.",
        f"on test prompts ({table['strict_f1'][strict]:.3f} against {table['strict_f1']['LLM-VA']:.3f}) and on the "
        f"unseen sets ({unseen['strict_f1'][strict]:.3f} against {unseen['strict_f1']['LLM-VA']:.3f})",
        f"takes models of whose replies {100 * table['degenerate'][released]:.0f} % are broken on average, most of "
        f"them in {count_in_words((broken > 0.1).sum())} of the eighteen runs",
        f"**Answering everything has an F1 of {constant:.3f}.** VectorSteer, tuned for F1, ends at "
        f"{vector:.3f}. Refusal ablation stays below it, at {ablation:.3f}, since",
        f"end at {table['strict_f1']['SCANS']:.3f} and {table['strict_f1']['CAST']:.3f}, near the original.",
    ]


def score_of_loop(files: Committed, slug: str) -> float:
    """Return the paper's loop's strict F1 in a study."""
    rows = files.results("table2", [slug])
    return rows.loc[(rows["method"] == "LLM-VA") & (rows["metric"] == "strict_f1"), "value"].item()


def utility(files: Committed) -> list[str]:
    """Figure 5's utility: averages, single runs, and the paper's own."""
    claims = files.table("headlines").groupby("claim")["paper"].first()
    paper = {name: 100 * claims[f"{name} kept, at least the paper's"] for name in ("utility", "arithmetic")}
    seeds = files.table("utility_seeds")
    runs = seeds[seeds["task"] == "mean"].groupby("method")["kept"].agg(["min", "max"])
    limits = [f"{100 * low:.0f} to {100 * high:.0f} %" for low, high in runs.loc[["AlphaSteer+", "VectorSteer"]].values]
    return [
        f"The paper keeps {paper['utility']:.0f} % on average and {paper['arithmetic']:.0f} % of arithmetic.",
        f"Here LLM-VA keeps {100 * files.kept('LLM-VA'):.0f} % and {100 * files.kept('LLM-VA', 'gsm'):.0f} %, "
        f"LLM-VA-R {100 * files.kept('LLM-VA-R'):.1f} % and {100 * files.kept('LLM-VA-R', 'gsm'):.1f} %.",
        f"AlphaSteer+ ({100 * files.kept('AlphaSteer+'):.0f} %) and VectorSteer "
        f"({100 * files.kept('VectorSteer'):.0f} %)",
        f"their single runs keep {limits[0]} and {limits[1]}.",
    ]


def ablations(files: Committed) -> list[str]:
    """Figures 6 and 12, by organism."""
    turned = {base: files.by("degrees", "figure6", base)["strict_f1"] for base in BASES}
    assert all(scores[90] - files.by("iteration", "figure12", base)["strict_f1"][0] < 0.005
               for base, scores in turned.items())  # fmt: skip
    falling = [base for base, scores in turned.items() if scores.is_monotonic_decreasing and scores[0] > 0.6]
    qwen3 = turned["tiny-qwen3"]
    assert qwen3[45] > qwen3[0] - 0.1 and qwen3[60] < qwen3[0] - 0.3
    sizes = {base: files.by("l_select", "figure8", base)["strict_f1"].idxmax() for base in BASES}
    assert sizes.pop("tiny-qwen2") == 8 and sizes.pop("tiny-qwen3") == 2 and set(sizes.values()) == {12}
    histories = {base: files.by("iteration", "figure12", base) for base in BASES}
    best = {base: history["strict_f1"].idxmax() for base, history in histories.items()}
    ends = {base: history.index.max() for base, history in histories.items()}
    breaking = {base: history[history["degenerate"] >= 0.05]["divergence"] for base, history in histories.items()}
    first = {base: divergence.iloc[0] for base, divergence in breaking.items() if len(divergence)}
    assert len(first) == len(BASES)
    least, most = min(first, key=first.get), max(first, key=first.get)
    half_broken = pandas.concat([history[history["degenerate"].between(0.4, 0.6)] for history in histories.values()])
    assert len(half_broken)
    assert half_broken["mean_accuracy_answer"].min() > 0.85
    return [
        "Vectors turned by 90 degrees gain nothing on any organism",
        f"F1 falls steadily on {count_in_words(len(falling))} organisms, and on tiny-qwen3 it falls off after 45 "
        f"degrees.",
        f"More edited sublayers help on {count_in_words(len(sizes))} organisms, where all twelve do best; eight",
        f"it is best after {min(best.values()):.0f} to {max(best.values()):.0f} of them, and the loops are stopped "
        f"after {min(ends.values()):.0f} to {max(ends.values()):.0f}.",
        f"5 % of the replies and more are broken from a divergence of {first[least]:.2f} on {least}, and from one of "
        f"{first[most]:.2f} on {most}.",
    ]


def sublayers(files: Committed) -> list[str]:
    """Table 3: shares of the sublayers, the paper's code's, and the choices of single runs."""
    ours, paper = files.table("table3")["share"], files.table("table3_paper")["share_code"]
    rows = files.results("table3", RUNS)
    chosen = rows[rows["metric"] == "l_select"]["value"]
    return [
        f"on average {100 * ours.min():.0f} to {100 * ours.max():.0f} % of them, where the paper's code has "
        f"{100 * paper.min():.0f} to {100 * paper.max():.0f} %.",
        f"In {count_in_words((chosen < chosen.max()).sum())} of the eighteen runs the smaller",
    ]


def unseen_sets(files: Committed) -> list[str]:
    """Table 4: how far the gains and ranks carry over."""
    seen, unseen = files.averages("table2")["strict_f1"], files.averages("table4")["strict_f1"]
    for method in ("LLM-VA", "Fine-tuning", "LLM-VA-R"):
        assert unseen[method] - unseen["Original"] > 0.3
    assert seen.corr(unseen, method="spearman") > 0.9
    return []


def gating(files: Committed) -> list[str]:
    """The table of two-sided gating, and the one-axis methods of Table 2."""
    rows = files.table("gating").set_index(["measure", "method"])
    mean, worst, p_value = rows["mean"], rows["worst"], rows["p"]
    ours, both, edit, tuned = "Two-sided StMP", "LLM-VA-R + two-sided StMP", "LLM-VA-R", "Fine-tuning"
    one_axis = files.averages("table2")["strict_f1"][["SwFC", "StTP", "StMP"]]
    seeds = files.table("table2_seeds")
    single = seeds[seeds["method"].isin(one_axis.index)]["strict_f1"]
    assert (rows["runs"] == 18).all() and one_axis.max() < files.averages("table2")["strict_f1"]["Answer everything"]
    measures = ("test", "unseen", "attacks")
    return [
        f"SwFC, StTP and StMP end at {one_axis['SwFC']:.3f}, {one_axis['StTP']:.3f} and {one_axis['StMP']:.3f} in "
        f"Table 2, single runs at {single.min():.3f} to {single.max():.3f}.",
        *(f"{words} {mean[name, ours]:.3f} (worst {worst[name, ours]:.3f}) against {mean[name, edit]:.3f} (worst "
          f"{worst[name, edit]:.3f}; {say_p(p_value[name, ours])})"
          for name, words in zip((*measures, "kept"), ("on test prompts", "on unseen sets", "under attacks",
                                                       "in utility"), strict=True)),
        f"With both they are {', '.join(f'{mean[name, both]:.3f}' for name in measures)} and {mean['kept', both]:.3f} "
        f"(p = {', '.join(f'{p_value[name, both]:.3f}' for name in measures)} and {p_value['kept', both]:.3f})",
        f"Fine-tuning is at {mean['attacks', tuned]:.3f} under attacks ({say_p(p_value['attacks', tuned])}), the "
        f"paper's loop at {mean['attacks', 'LLM-VA']:.3f} and the original at {mean['attacks', 'Original']:.3f}.",
    ]  # fmt: skip


def say_p(value: float) -> str:
    """Return a p-value as prose has it."""
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def steering(files: Committed) -> list[str]:
    """The table of run-time steering, shifts on neutral text and repetition over turns."""
    rows = files.table("runtime").fillna({"position": ""})
    means = rows.groupby(["threat", "method", "position"])[["trait", "coherence", "kept"]].mean()
    single = rows.set_index(["threat", "method", "position", "model"])["trait"].sort_index()
    assert rows["model"].nunique() == 6 and (rows["n"] == 40).all()
    threats, gated = ("dishonesty", "dismissiveness"), ("StTP", "StMP")
    found = []
    for threat in threats:
        low, high = single[threat, "malicious", ""].max(), single[threat, "aligned", ""].min()
        assert low <= 0.35 and high >= 0.9
        values = [means.loc[(threat, method, "all")] for method in ("SwFC", *gated)]
        found.append(f"{threat}: {' / '.join(f'{value.trait:.2f}' for value in values)} of the trait at a coherence of "
                     f"{' / '.join(f'{value.coherence:.2f}' for value in values)}")  # fmt: skip
    recovered = recovered_shares(single)
    short = recovered[recovered < 0.5]
    assert set(short.index.get_level_values("method")) <= {"SwFC", "StTP"} and len(short)
    response = [means.loc[(threat, method, "response"), "trait"] for threat in threats for method in ("SwFC", *gated)]
    controls = means[means.index.get_level_values("method").str.endswith("(random direction)")]["trait"]
    coherence = means["coherence"].xs("all", level="position").unstack("method")
    assert (coherence["StTP (gate always on)"] >= coherence["StTP"]).all()
    results = files.results("runtime", list(rows["model"].unique()))
    shifts = results[(results["metric"] == "shift_neutral") & (results["position"] == "all")]
    shifts = shifts.groupby("method")["value"].mean()
    assert shifts[list(gated)].max() < shifts["SwFC"]
    kept = means["kept"][:, :, "all"].groupby("method").mean()
    trait = means["trait"][:, :, "all"]
    for threat in threats:
        assert abs(trait[threat, "StMP"] - trait[threat, "StMP (mean difference)"]) < 0.05
        assert trait[threat, "StMP (gate always on)"] < trait[threat, "StMP"] - 0.05
    methods = [count_in_words(len(short.xs(method, level="method"))) for method in ("SwFC", "StTP")]
    return [
        f"{rows['n'].unique().item()} test scenarios each",
        *found,
        f"In {count_in_words(len(short))} of {recovered.size} single cases less than half of the gap comes back, the "
        f"least {short.min():.2f}: {methods[0]} of SwFC, {methods[1]} of StTP.",
        f"Steering the reply's tokens alone brings back {min(response):.2f} to {max(response):.2f}.",
        f"A random direction brings back {controls.max():.2f} at most.",
        f"SwFC moves each of its tokens by {shifts['SwFC']:.0f}, StTP and StMP by {shifts['StTP']:.1f} and "
        f"{shifts['StMP']:.1f} on average, and they keep {kept['SwFC']:.2f}, {kept['StTP']:.2f} and {kept['StMP']:.2f} "
        f"of the neutral tasks.",
        *repetition(files, list(rows["model"].unique())),
    ]


def second_papers_claims(files: Committed) -> list[str]:
    """The verdicts on the second paper's claims: how many hold, and those that are told in words."""
    claims = files.table("runtime_claims")
    counts = claims["verdict"].value_counts()
    verdicts = {
        (beginning, method): set(
            claims[claims["claim"].str.startswith(beginning) & claims["method"].eq(method)]["verdict"]
        )
        for beginning in ("trait,", "coherence,", "coherence above", "mean change", "repetition")
        for method in ("SwFC", "StTP", "StMP")
    }
    assert all(verdicts["trait,", method] == {"holds"} for method in ("SwFC", "StTP", "StMP"))
    for method in ("StTP", "StMP"):
        assert verdicts["coherence above", method] == verdicts["mean change", method] == {"holds"}
        assert verdicts["coherence,", method] == {"cannot be told"}
    assert verdicts["coherence,", "SwFC"] == {"does not hold"} and verdicts["repetition", "SwFC"] == {"cannot be told"}
    return [
        f"Of the second paper's claims {counts['holds']} of {len(claims)} hold on organisms (table `runtime_claims`), "
        f"{counts['does not hold']} do not, and {counts['cannot be told']} cannot be told."
    ]


def recovered_shares(single: pandas.Series) -> pandas.Series:
    """Return the share of the gap between both sides that steering at all tokens brings back, by run."""
    threats = {}
    for threat in single.index.unique("threat"):
        low, high = single[threat, "malicious", ""], single[threat, "aligned", ""]
        for method in ("SwFC", "StTP", "StMP"):
            threats[threat, method] = (single[threat, method, "all"] - low) / (high - low)
    return pandas.concat(threats, names=["threat", "method"])


def repetition(files: Committed, slugs: list[str]) -> list[str]:
    """Repeated 4-grams within a reply, from the first turn to the ninth."""
    turns = files.results("runtime_turns", slugs)
    rows = turns[(turns["metric"] == "within") & (turns["position"] != "response")]
    shares = rows.groupby(["threat", "method", "turn"])["value"].mean()
    growing = {
        (threat, method): f"{shares[threat, method, 1]:.2f} to {shares[threat, method, 9]:.2f}"
        for threat, method in (("dishonesty", "SwFC"), ("dishonesty", "StTP"), ("dismissiveness", "SwFC"))
    }
    assert shares.xs("StMP", level="method").max() < 0.005
    by_run = rows[rows["threat"] == "dishonesty"].pivot_table(index=["method", "model"], columns="turn", values="value")
    grown = by_run[9] - by_run[1] > 0.005
    return [
        f"against dishonesty SwFC goes from {growing['dishonesty', 'SwFC']} over nine turns, in "
        f"{count_in_words(grown['SwFC'].sum())} of the six runs upwards",
        f"against dismissiveness it stays where it is ({growing['dismissiveness', 'SwFC']})",
        f"StTP goes from {growing['dishonesty', 'StTP']}, all of it in one run",
    ]


def judges(files: Committed) -> list[str]:
    """The table of judges."""
    table = files.averages("judges", ["dataset", "case"])["agreement"]
    assert (table[:, "guard and phrases"] == 1).all()
    benign, toxic = (table[label, "guard and phrases and evasions"] for label in ("benign", "toxic"))
    return [f"agrees with them on a share of {benign:.3f} of the benign prompts and {toxic:.3f} of the toxic ones."]


def controls(files: Committed) -> list[str]:
    """The tables of noise and of shortcuts."""
    noised = files.averages("noise", "case").loc[1.0]
    table = files.averages("shortcuts", "case")
    limits = [f"{table[name].min():.2f} to {table[name].max():.2f}" for name in ("unseen_accuracy", "seen_accuracy")]
    assert len(SAFETY_SETS) == 4
    return [
        f"with noise as large as the weights' own spread loose F1 is {noised['f1']:.3f}, strict F1 "
        f"{noised['strict_f1']:.3f}.",
        f"reaches an accuracy of {limits[0]} on the other two, beside {limits[1]} on its own",
    ]


def fresh_organisms(files: Committed) -> list[str]:
    """The table `ridge`, on organisms that no choice was made on."""
    table = files.table("ridge").set_index("method")
    score, worst, unseen, kept, gsm = (
        table[name] for name in ("test_strict_f1_mean", "test_strict_f1_worst", "transfer_strict_f1_mean",
                                 "kept_mean", "kept_gsm_mean")
    )  # fmt: skip
    columns = ["test_strict_f1_p", "transfer_strict_f1_p", "kept_p"]
    seen_p, unseen_p, kept_p = corrected_by_holm(table.loc["LLM-VA", columns].tolist())
    ours, loop, tuned = "LLM-VA-R", "LLM-VA", "Fine-tuning"
    tuned_p = ", ".join(f"{value:.3f}" for value in table.loc[tuned, columns])
    assert (table["studies"] == 12).all() and (table.loc[tuned, columns] > 0.05).all()
    assert max(seen_p, kept_p) < 0.05 < unseen_p and score["LLM-VA, L_select in full"] < score[loop]
    assert min(worst[ours], worst["soft SVM"]) > 0.9
    prototype, without = table.loc["RMS and ridge"], "without arithmetic in the neutral text"
    return [
        f"in strict F1 ({score[ours]:.3f}, worst {worst[ours]:.3f}, against {score[loop]:.3f}, worst "
        f"{worst[loop]:.3f}) and in utility ({kept[ours]:.3f} against {kept[loop]:.3f}), also when the three "
        f"comparisons are corrected for their number (Holm: p = {seen_p:.3f} and {kept_p:.3f}); on unseen sets "
        f"({unseen[ours]:.3f} against {unseen[loop]:.3f}) the difference is not confirmed (p = {unseen_p:.3f}).",
        f"on test prompts ({score[tuned]:.3f}), on unseen sets ({unseen[tuned]:.3f}) and in utility "
        f"({kept[tuned]:.3f}; uncorrected p = {tuned_p}).",
        f'a strict F1 above 0.9 on every organism (the row "soft SVM" has a worst of {worst["soft SVM"]:.3f})',
        f"(worst {worst['RMS and ridge']:.3f} and {worst['RMS']:.3f}), though the prototype is above LLM-VA on average "
        f"(p = {prototype['test_strict_f1_p_paper']:.3f} in F1, and {prototype['kept_p_paper']:.4f} in utility).",
        f"{gsm[ours]:.3f} of it is kept, {gsm[without]:.3f} without it, and {gsm['lambda 0']:.3f} without neutral text",
        f"do not help LLM-VA ({score['LLM-VA, L_select in full']:.3f} with all of them).",
    ]


def corrected_by_holm(values: list[float]) -> numpy.ndarray:
    """Return p values corrected for their number, in the order given."""
    order = numpy.argsort(values)
    steps = numpy.sort(values) * numpy.arange(len(values), 0, -1)
    corrected = numpy.empty(len(values))
    corrected[order] = numpy.maximum.accumulate(steps).clip(max=1)
    return corrected


def reading(files: Committed) -> list[str]:
    """The last cell: runs of Table 2, arithmetic kept, and the table of performance."""
    seeds = files.table("table2_seeds")
    scores = seeds[seeds["method"] == "LLM-VA"]["strict_f1"]
    assert (scores > 0.9).sum() == 9 and (scores < 0.7).sum() == 1 and len(scores) == 18
    rows = files.table("performance").set_index(["benchmark", "setting"])["ratio"]
    solver = rows["solver, time"]
    assert rows["solver, exact one converged"].eq(1).all() and rows["solver, LinearSVC converged"].min() < 1
    assert rows["capture, time"].max() <= 1.03
    loop = rows["loop, time"]
    one, two = (loop[loop.index.str.endswith(f"threads: {threads}")] for threads in (1, 2))
    looks = [f"{times.filter(like='empty caches').item():.1f} and {times.filter(like='in a study').item():.1f}"
             for times in (one, two)]  # fmt: skip
    edited = rows["edited over original, throughput"].item()
    return [
        "Half of the runs end above 0.9 and one finds little",
        f"Arithmetic suffers most: {100 * files.kept('LLM-VA', 'gsm'):.0f} % of it is kept.",
        f"is {solver.min():.0f} to {solver.max():.0f} times as fast as LinearSVC",
        f"answers at {edited:.2f} of the original's rate",
        f"With empty caches and in a study, the loop is {looks[0]} times as fast as the plain way on an organism with "
        f"one thread, and {looks[1]} times with two.",
        f"There are three seeds of each organism, {seeds['n'].unique().item()} test prompts of each",
        *second_papers_claims(files),
    ]


CHECKS = {
    "Figure 1 and Figure 9: angles": angles,
    "Table 1: what each method needs, and what it does": marks,
    "Table 2: main results": main_results,
    "Figure 5: utility": utility,
    "Figures 6 to 8, 10 and 12, Table 3: ablations, and which sublayers": lambda files: [
        *ablations(files),
        *sublayers(files),
    ],
    "Table 4: unseen sets, and the claims in numbers": unseen_sets,
    "Attacks in unseen wrappers, and steering by both decisions": gating,
    "Run-time steering: the second paper": steering,
    "Figure 11: two judges against one, and what could break the claims": lambda files: [
        *judges(files),
        *controls(files),
    ],
    "Ours: LLM-VA-R on organisms of its own": fresh_organisms,
    "Reading": reading,
}


def read_prose(name: str = "20_paper") -> dict[str, str]:
    """Return a notebook's sections after its box, by heading."""
    cells = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4).cells[1:]
    sources = [cell.source for cell in cells if cell.cell_type == "markdown"]
    return {source.splitlines()[0].removeprefix("## "): source for source in sources}


each = pytest.mark.parametrize("heading", CHECKS)


@each
def test_a_sentence_of_the_notebook_is_what_committed_files_say(heading, committed):  # noqa: F811
    text = read_prose()[heading]
    assert not [sentence for sentence in CHECKS[heading](Committed(committed)) if sentence not in text]


@each
def test_a_changed_number_is_noticed(heading, committed):  # noqa: F811
    fragments = CHECKS[heading](Committed(committed))
    assert all(unchecked_numbers(copy, fragments) for copy in changed_at_each_number(read_prose()[heading]))


def find_unchecked(prose: dict[str, str], checks: dict, files: Committed) -> dict[str, list[str]]:
    """Return the numbers that no fragment holds, by heading."""
    unchecked = {
        heading: unchecked_numbers(text, checks[heading](files) if heading in checks else [])
        for heading, text in prose.items()
    }
    return {heading: numbers for heading, numbers in unchecked.items() if numbers}


def test_no_number_is_unchecked(committed):  # noqa: F811
    assert not find_unchecked(read_prose(), CHECKS, Committed(committed))


def test_a_changed_table_is_noticed(committed, tmp_path):  # noqa: F811
    text = read_prose()["Table 2: main results"]
    copytree(committed, tmp_path, dirs_exist_ok=True)
    assert all(sentence in text for sentence in main_results(Committed(tmp_path)))
    table = pandas.read_csv(tmp_path / "tables" / "table4.csv")
    table.loc[table["model"] == "mean", "strict_f1"] += 0.001
    table.to_csv(tmp_path / "tables" / "table4.csv", index=False)
    assert not all(sentence in text for sentence in main_results(Committed(tmp_path)))


def test_what_notebook_4_says_of_three_organisms_is_on_record(committed):  # noqa: F811
    files = Committed(committed)
    table = files.results("table2", BASES)
    rows = table[(table["method"] == "LLM-VA") & (table["dataset"] == "all") & (table["metric"] == "strict_f1")]
    ranked = rows.set_index("model")["value"].sort_values()
    worst, middle, best = (files.by("iteration", "history", ranked.index[place]) for place in (0, len(ranked) // 2, -1))
    # It works: 0.96 within five iterations, the angle falls from 82 to 70 degrees, and hardly a failure is left.
    chosen = best["strict_f1"].idxmax()
    assert (chosen, f"{best.loc[chosen, 'strict_f1']:.2f}") == (5, "0.96")
    assert [f"{best.loc[iteration, 'mean_angle']:.0f}" for iteration in (0, chosen)] == ["82", "70"]
    assert best.loc[chosen, ["asr", "orr"]].max() < 0.1
    # Replies pay: the failures go, with a tenth of the replies, and three iterations later eight in ten are broken.
    chosen = middle["strict_f1"].idxmax()
    assert middle.loc[chosen, ["asr", "orr"]].max() < 0.1
    assert [f"{middle.loc[chosen + later, 'degenerate']:.1f}" for later in (0, 3)] == ["0.1", "0.8"]
    # It starts badly: a fifth of the replies for nothing; it ends at 0.77 with one broken reply in ten.
    chosen = worst["strict_f1"].idxmax()
    assert f"{worst.loc[1, 'degenerate']:.1f}" == "0.2" and worst.loc[1, "strict_f1"] < worst.loc[0, "strict_f1"]
    assert [f"{worst.loc[chosen, name]:.2f}" for name in ("strict_f1", "degenerate")] == ["0.77", "0.10"]
    for history in (worst, middle, best):
        chosen = history["strict_f1"].idxmax()
        assert history.loc[[0, chosen, chosen + 1], "mean_accuracy_answer"].min() > 0.9
