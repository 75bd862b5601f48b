"""From stages to the tracked result files: what each display item needs, in long format."""

import json

import pandas

from llmva.core.errors import InputError
from llmva.core.results import write_results
from llmva.core.store import Stage
from llmva.core.vocabulary import BOTH, ERROR_RATE, LOOPS, ORIGINAL, PAPER_LOOP, RIGHT_VERDICTS
from llmva.measures.intervals import with_intervals
from llmva.measures.metrics import correct
from llmva.measures.shares import chance_levels, share_kept
from llmva.method.iteration import read_observation
from llmva.steering.llm_va import LlmVa
from llmva.steering.registry import METHODS
from llmva.steering.runtime.edited import OnEditedModel
from llmva.study.evaluation import read_outcomes, read_utility
from llmva.study.loop_variants import read_loop
from llmva.study.stages import read_activations_of, read_labelled_verdicts, read_verdicts
from llmva.study.study import Study

MAIN_METRICS = ["f1", "strict_f1", "asr", "orr", "degenerate"]
# What goes on inside a loop, beside its rates.
HEALTH = ("mean_angle", "mean_scale", "mean_accuracy_answer", "divergence")
# Their share of the depth.
FIRST_BLOCKS = 0.1
NULL_QUANTILES = {"low": 0.025, "high": 0.975}


def record_prompts(study: Study) -> pandas.DataFrame:
    """Write how the original model errs on its pool; return `asr` or `orr`, `degenerate` and `n` by set."""
    rows = study.pool.merge(read_verdicts(study.prompts_stage), on="id", validate="one_to_one")
    rows["wrong"] = ~correct(rows, strict=False).to_numpy()
    sets = rows.groupby("dataset")
    rates = pandas.DataFrame(index=sets.size().index, columns=["asr", "orr"], dtype=float)
    for name, group in sets:
        rates.loc[name, ERROR_RATE[group["label"].iloc[0]]] = group["wrong"].mean()
    rates = rates.assign(degenerate=sets["verdict"].agg(lambda verdicts: (verdicts == "degenerate").mean()))
    rates["n"] = sets.size()
    record(study, "prompts", lengthen(rates.set_index("n", append=True)), method=ORIGINAL)
    return rates


def record_angles(study: Study, observed: Stage) -> pandas.DataFrame:
    """Write figures 1 and 9: the angle of v_a and v_b by sublayer, its permuted-label null, and that of chance."""
    null = pandas.read_csv(observed / "null_angles.csv", index_col="draw")
    chance = pandas.read_csv(observed / "random_angles.csv", index_col="quantile")
    angles = {"angle": read_observation(observed).sublayers["angle"], "angle_null_mean": null.mean()}
    for side, quantile in NULL_QUANTILES.items():
        angles |= {f"angle_null_{side}": null.quantile(quantile), f"angle_random_{side}": chance.loc[quantile]}
    table = pandas.DataFrame(angles).rename_axis("sublayer")
    training = int((read_verdicts(observed)["split"] == "train").sum())
    record(study, "figure9", lengthen(table), method=ORIGINAL, dataset="train", n=training)
    return table


def record_margins(study: Study, stage: Stage) -> pandas.DataFrame:
    """Write what softer margins make of the angles: by margin, means over all sublayers and over the first blocks.

    `below` is the share of sublayers whose angle lies below the middle 95 % of their permutations.
    """
    table = pandas.read_csv(stage / "margins.csv")
    table["below"] = table["angle"] < table["angle_null_low"]
    table["group"] = [f"{scale}, C = {penalty:g}" for scale, penalty in table[["feature_scale", "penalty"]].to_numpy()]
    blocks = table["sublayer"].str.rpartition(".")[2].astype(int)
    first = table[blocks < max(1, round(FIRST_BLOCKS * (blocks.max() + 1)))]
    angles = ["angle", "angle_null_mean"]
    accuracies = ["accuracy_benign", "accuracy_answer", *(name for name in table if name.endswith("_accuracy"))]
    means = table.groupby("group", sort=False)[[*angles, "below", *accuracies]].mean()
    means = means.join(first.groupby("group")[angles].mean().add_suffix("_first"))
    record(study, "margins", lengthen(means), method=ORIGINAL)
    return means


def record_projections(study: Study, observed: Stage, sublayers: list[str]) -> pandas.DataFrame:
    """Write figure 2: the held-out prompts' projections on v_b and v_a at some sublayers.

    Of the prompts that an SVM was fitted to, separation says nothing.
    """
    activations, observation = read_activations_of(observed), read_observation(observed)
    rows = read_labelled_verdicts(study, observed)
    held_out = (rows["split"] == "validation").to_numpy()
    shared = rows.loc[held_out, ["dataset", "guard_verdict"]].rename(columns={"guard_verdict": "verdict"})
    tables = [
        shared.assign(
            sublayer=name,
            metric=f"{kind}_projection",
            # Four decimals: a point in a histogram needs no more, and the file is tracked.
            value=(activations[name][held_out] @ getattr(observation.vectors[name], kind)).round(4),
        )
        for name in sublayers
        for kind in ("benign", "answer")
    ]
    frame = pandas.concat(tables, ignore_index=True)
    record(study, "figure2", frame, method=ORIGINAL, n=1)
    return frame


def record_layer_selection(study: Study, observed: Stage, probed: Stage) -> pandas.DataFrame:
    """Write figure 10, the scores of Eq. 6, and table 3, the chosen L_select; return the scores and their terms."""
    scores = read_observation(observed).sublayers
    record(study, "figure10", lengthen(scores[["score"]]), method=ORIGINAL)
    choice = json.loads((probed / "choice.json").read_text())
    share = choice["l_select"] / choice["sublayers"]
    record(study, "table3", lengthen(pandas.DataFrame([{**choice, "share": share}])))
    return scores


def record_plane(study: Study, aligned: Stage) -> pandas.DataFrame:
    """Write figure 3: each validation prompt's place in the plane of v_b and v_a, before and after."""
    plane = pandas.read_csv(aligned / "plane.csv", keep_default_na=False)
    plane["group"] = [_group(label, verdict) for label, verdict in zip(plane["label"], plane["verdict"], strict=True)]
    plane["method"] = plane["when"].map({"before": ORIGINAL, "after": PAPER_LOOP})
    columns = {"benign": "benign_projection", "answer": "answer_projection"}
    long = plane.rename(columns=columns).melt(["id", "dataset", "method", "group"], list(columns.values()), "metric")
    record(study, "figure3", long.round({"value": 4}), n=1)
    return plane


def record_history(study: Study, aligned: Stage) -> pandas.DataFrame:
    """Write the loop's validation metrics and means by iteration."""
    history = read_loop(aligned).history
    record(study, "history", lengthen(history))
    return history


def record_results(study: Study, evaluated: dict[str, Stage]) -> pandas.DataFrame:
    """Write table 2, every method's metrics on the test prompts with intervals and tests, and table 1's properties."""
    frame = with_intervals(read_outcomes(evaluated, "test"), seed=study.params.seed)
    record(study, "table2", frame)
    kinds = {**METHODS, **dict.fromkeys(LOOPS, LlmVa), BOTH: OnEditedModel}
    properties = {name: {"finetunes": kind.finetunes, "hooks": kind.hooks} for name, kind in kinds.items()}
    table = pandas.DataFrame.from_dict(properties, orient="index", dtype=float).drop(index=ORIGINAL)
    record(study, "table1", lengthen(table.rename_axis("method")), dataset="all", n=1)
    return frame


def record_transfer(study: Study, evaluated: dict[str, Stage]) -> pandas.DataFrame:
    """Write table 4: the same as table 2 on sets that nothing was learnt from."""
    outcomes = read_outcomes(evaluated, "transfer")
    if not outcomes:
        raise InputError(f"{study.params.data}: no unseen sets, so no table 4; `make data` makes some")
    frame = with_intervals(outcomes, seed=study.params.seed)
    record(study, "table4", frame)
    return frame


def record_utility(study: Study, evaluated: dict[str, Stage]) -> pandas.DataFrame:
    """Write what every method scores on every utility task (figure 5), and the chance levels of those that have one."""
    scores = read_utility(evaluated).rename(columns={"task": "dataset"})
    if scores.empty:
        raise InputError(f"{study.params.data}: no tasks, so no figure 5; `make data` makes some")
    # A broken reply on a negative row costs the F1 of the positive class nothing: the share of it stands beside.
    unreadable = scores.assign(metric="unreadable", value=scores["unreadable"]).dropna(subset="value")
    chance = scores[scores["method"] == ORIGINAL].assign(metric="chance")
    chance["value"] = chance["dataset"].map(chance_levels(study.tasks))
    parts = [rows for rows in (scores, unreadable, chance.dropna(subset="value")) if len(rows)]
    record(study, "utility", pandas.concat(parts).drop(columns="unreadable"))
    return scores


def record_angle_ablation(study: Study, stage: Stage) -> pandas.DataFrame:
    """Write figure 6: the best validation F1 of each run by degrees and draw, and the original's."""
    runs = pandas.read_csv(stage / "angles.csv")
    best = runs.groupby(["degrees", "draw"])[["f1", "strict_f1"]].max()
    start = runs.loc[runs["iteration"] == 0, ["f1", "strict_f1"]].head(1).melt(var_name="metric")
    frame = pandas.concat([lengthen(best).assign(method=PAPER_LOOP), start.assign(method=ORIGINAL)])
    record(study, "figure6", frame)
    return best.reset_index()


def record_iteration_ablation(study: Study, stage: Stage) -> pandas.DataFrame:
    """Write figures 7 and 12: validation metrics and the loop's health by iteration, and the iteration chosen."""
    loop = read_loop(stage)
    curves = lengthen(loop.history[[*MAIN_METRICS, *HEALTH]])
    record(study, "figure12", pandas.concat([curves, _single("best_iteration", loop.choice.best_iteration)]))
    return loop.history


def record_layer_ablation(study: Study, stage: Stage, original: Stage) -> pandas.DataFrame:
    """Write figure 8: validation F1 and utility kept by number of edited sublayers, and the number chosen."""
    table = pandas.read_csv(stage / "layers.csv").set_index("l_select")
    # Of tasks that the data do not have, nan.
    kept = share_kept(table, pandas.read_csv(original / "utility.csv").set_index("task")["value"])
    table = table.assign(kept=kept.mean(axis=1), kept_gsm=kept.get("gsm", float("nan")))
    curves = lengthen(table[["f1", "strict_f1", "kept", "kept_gsm"]], keep_missing=True)
    long = pandas.concat([curves, _single("chosen", stage.manifest["parameters"]["l_select"])])
    counts = {True: len(study.tasks), False: len(study.validation)}
    record(study, "figure8", long.assign(n=long["metric"].str.startswith("kept").map(counts)))
    return table


def record_judges(study: Study, stage: Stage, agreement: pandas.DataFrame) -> pandas.DataFrame:
    """Write figure 11, rates by iteration under one judge and under two, and the judges' agreement."""
    histories = pandas.read_csv(stage / "histories.csv").set_index("iteration")
    rates = [name for name in histories if name.endswith(("_asr", "_orr")) or name == "strict_f1"]
    curves = {judges: lengthen(history[rates]) for judges, history in histories.groupby("judges", sort=False)}
    record(study, "figure11", pandas.concat(curves, names=["method"]).reset_index("method"))
    keys = ["method", "dataset", "first", "second", "n"]
    record(study, "judges", lengthen(agreement.rename(columns={"label": "dataset"}).set_index(keys)))
    return histories


def record_noise(study: Study, stage: Stage) -> pandas.DataFrame:
    """Write what the metrics make of a model with noise on its weights."""
    table = pandas.read_csv(stage / "noise.csv")
    shown = table.set_index("noise")[[*MAIN_METRICS, "balanced_accuracy"]]
    record(study, "noise", lengthen(shown), method="Noised")
    return table


def record_shortcuts(study: Study, stage: Stage) -> pandas.DataFrame:
    """Write the shortcut control: means over sublayers of v_b's accuracies and cosine, by pair of sets learnt from."""
    table = pandas.read_csv(stage / "shortcuts.csv")
    means = table.groupby(["benign_set", "toxic_set"])[["seen_accuracy", "unseen_accuracy", "cosine"]].mean()
    record(study, "shortcuts", lengthen(means), method=ORIGINAL)
    return means


def record(
    study: Study,
    item: str,
    rows: pandas.DataFrame,
    *,
    method: str = PAPER_LOOP,
    dataset: str = "validation",
    n: int | None = None,
) -> None:
    """Write rows in long format as an item's results; columns that they lack are filled in."""
    defaults = {"method": method, "dataset": dataset, "seed": study.params.seed}
    if "n" not in rows:
        defaults["n"] = n or len(study.validation)
    missing = {name: value for name, value in defaults.items() if name not in rows}
    write_results(study.params.slug, item, rows.assign(**missing))


def lengthen(table: pandas.DataFrame, *, keep_missing: bool = False) -> pandas.DataFrame:
    """Return one row per number of a table: its named index levels, metric, value; nan is left out unless kept."""
    keys = [name for name in table.index.names if name]
    long = table.melt(var_name="metric", ignore_index=not keys).reset_index(drop=not keys)
    return long if keep_missing else long.dropna(subset="value")


def _single(metric: str, value: float) -> pandas.DataFrame:
    """Return the row of a number that no key tells apart."""
    return pandas.DataFrame({"metric": [metric], "value": [float(value)]})


def _group(label: str, verdict: str) -> str:
    if verdict in ("degenerate", "unparsed"):
        return "broken reply"
    if verdict in RIGHT_VERDICTS[label]:
        return "handled rightly"
    return "over-refusal" if label == "benign" else "jailbreak"
