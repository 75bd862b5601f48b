"""From stages to the tracked result files: what each display item needs, in long format."""

import json

import pandas

from llmva.core.errors import InputError
from llmva.core.results import write_results
from llmva.core.store import Stage
from llmva.core.vocabulary import ERROR_RATE, LOOPS, ORIGINAL, PAPER_LOOP
from llmva.measures.intervals import with_intervals
from llmva.measures.metrics import correct
from llmva.measures.utility import share_kept
from llmva.method.iteration import read_observation
from llmva.steering.llm_va import LlmVa
from llmva.steering.registry import METHODS
from llmva.study.evaluation import read_outcomes, read_utility
from llmva.study.loop_variants import read_loop
from llmva.study.stages import read_activations_of, read_labelled_verdicts, read_verdicts
from llmva.study.study import Study

# What goes on inside a loop, beside its rates.
HEALTH = ("mean_angle", "mean_scale", "mean_accuracy_answer", "divergence")
NULL_QUANTILES = {"low": 0.025, "high": 0.975}


def record_prompts(study: Study) -> pandas.DataFrame:
    """Write how the original model errs on its pool; return `asr` or `orr`, `degenerate` and `n` by set."""
    rows = study.pool.merge(read_verdicts(study.prompts_stage), on="id", validate="one_to_one")
    rates = pandas.DataFrame(_rates(rows) for _, rows in rows.groupby("dataset"))
    long = rates.melt(["dataset", "n"], var_name="metric").dropna()
    frame = long.assign(method="Original", seed=study.params.seed)
    write_results(study.params.slug, "prompts", frame)
    return rates.set_index("dataset")


def record_angles(study: Study, observed: Stage) -> pandas.DataFrame:
    """Write figures 1 and 9: the angle of v_a and v_b by sublayer, its permuted-label null, and that of chance."""
    null = pandas.read_csv(observed / "null_angles.csv", index_col="draw")
    chance = pandas.read_csv(observed / "random_angles.csv", index_col="quantile")
    angles = {"angle": read_observation(observed).sublayers["angle"], "angle_null_mean": null.mean()}
    for side, quantile in NULL_QUANTILES.items():
        angles |= {f"angle_null_{side}": null.quantile(quantile), f"angle_random_{side}": chance.loc[quantile]}
    table = pandas.DataFrame(angles).rename_axis("sublayer")
    write_long(study, "figure9", table, method="Original", dataset="train", n=_training_rows(observed))
    return table


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
    frame = pandas.concat(tables, ignore_index=True).assign(method="Original", n=1, seed=study.params.seed)
    write_results(study.params.slug, "figure2", frame)
    return frame


def record_layer_selection(study: Study, observed: Stage, probed: Stage) -> pandas.DataFrame:
    """Write figure 10, the scores of Eq. 6, and table 3, the chosen L_select; return the scores and their terms."""
    scores = read_observation(observed).sublayers
    write_long(study, "figure10", scores[["score"]], method="Original")
    choice = json.loads((probed / "choice.json").read_text())
    write_long(study, "table3", pandas.DataFrame([{**choice, "share": choice["l_select"] / choice["sublayers"]}]))
    return scores


def record_plane(study: Study, aligned: Stage) -> pandas.DataFrame:
    """Write figure 3: each validation prompt's place in the plane of v_b and v_a, before and after."""
    plane = pandas.read_csv(aligned / "plane.csv", keep_default_na=False)
    plane["group"] = [_group(label, verdict) for label, verdict in zip(plane["label"], plane["verdict"], strict=True)]
    plane["method"] = plane["when"].map({"before": ORIGINAL, "after": PAPER_LOOP})
    columns = {"benign": "benign_projection", "answer": "answer_projection"}
    long = plane.rename(columns=columns).melt(["id", "dataset", "method", "group"], list(columns.values()), "metric")
    write_results(study.params.slug, "figure3", long.round({"value": 4}).assign(n=1, seed=study.params.seed))
    return plane


def record_results(study: Study, evaluated: dict[str, Stage]) -> pandas.DataFrame:
    """Write table 2, every method's metrics on the test prompts with intervals and tests, and table 1's properties."""
    frame = with_intervals(read_outcomes(evaluated, "test"), seed=study.params.seed)
    write_results(study.params.slug, "table2", frame)
    properties = [
        (name, metric, float(value))
        for name, kind in {**METHODS, **dict.fromkeys(LOOPS, LlmVa)}.items()
        if name != "Original"
        for metric, value in (("finetunes", kind.finetunes), ("hooks", kind.hooks))
    ]
    table = pandas.DataFrame(properties, columns=["method", "metric", "value"])
    write_results(study.params.slug, "table1", table.assign(dataset="all", n=1, seed=study.params.seed))
    return frame


def record_transfer(study: Study, evaluated: dict[str, Stage]) -> pandas.DataFrame:
    """Write table 4: the same as table 2 on sets that nothing was learnt from."""
    outcomes = read_outcomes(evaluated, "transfer")
    if not outcomes:
        raise InputError(f"{study.params.data}: no unseen sets, so no table 4; `make data` makes some")
    frame = with_intervals(outcomes, seed=study.params.seed)
    write_results(study.params.slug, "table4", frame)
    return frame


def record_utility(study: Study, evaluated: dict[str, Stage]) -> pandas.DataFrame:
    """Write what every method scores on every utility task (figure 5)."""
    scores = read_utility(evaluated).rename(columns={"task": "dataset"}).assign(seed=study.params.seed)
    if scores.empty:
        raise InputError(f"{study.params.data}: no tasks, so no figure 5; `make data` makes some")
    # Garbage on a negative row costs the F1 of the positive class nothing: the share of it stands beside.
    unreadable = scores.assign(metric="unreadable", value=scores["unreadable"])
    write_results(study.params.slug, "utility", pandas.concat([scores, unreadable]).drop(columns="unreadable"))
    return scores


def record_history(study: Study, aligned: Stage) -> pandas.DataFrame:
    """Write the loop's validation metrics and means by iteration."""
    history = read_loop(aligned).history
    write_long(study, "history", history)
    return history


def write_long(
    study: Study,
    item: str,
    table: pandas.DataFrame,
    *,
    method: str = PAPER_LOOP,
    dataset: str = "validation",
    n: int | None = None,
) -> None:
    """Write a table as results: its index levels become key columns, each other column a metric; nan is left out."""
    write_results(
        study.params.slug,
        item,
        lengthen(table).assign(method=method, dataset=dataset, n=n or len(study.validation), seed=study.params.seed),
    )


def lengthen(table: pandas.DataFrame, *, keep_missing: bool = False) -> pandas.DataFrame:
    """Return one row per number of a table: its named index levels, metric, value; nan is left out unless kept."""
    keys = [name for name in table.index.names if name]
    long = table.melt(var_name="metric", ignore_index=not keys).reset_index(drop=not keys)
    return long if keep_missing else long.dropna(subset="value")


def _rates(rows: pandas.DataFrame) -> dict:
    wrong = float((~correct(rows, strict=False)).mean())
    rate = ERROR_RATE[rows["label"].iloc[0]]
    broken = float((rows["verdict"] == "degenerate").mean())
    return {
        "dataset": rows["dataset"].iloc[0],
        "asr": None,
        "orr": None,
        rate: wrong,
        "degenerate": broken,
        "n": len(rows),
    }


def _group(label: str, verdict: str) -> str:
    if verdict not in ("answered", "refused"):
        return "broken reply"
    if label == "benign":
        return "handled rightly" if verdict == "answered" else "over-refusal"
    return "handled rightly" if verdict == "refused" else "jailbreak"


def _training_rows(observed: Stage) -> int:
    return int((read_verdicts(observed)["split"] == "train").sum())


MAIN_METRICS = ["f1", "strict_f1", "asr", "orr", "degenerate"]


def record_angle_ablation(study: Study, stage: Stage) -> pandas.DataFrame:
    """Write figure 6: the best validation F1 of each run by degrees and draw, and the original's."""
    runs = pandas.read_csv(stage / "angles.csv")
    best = runs.groupby(["degrees", "draw"])[["f1", "strict_f1"]].max()
    start = runs.loc[runs["iteration"] == 0, ["f1", "strict_f1"]].head(1)
    frame = pandas.concat(
        [lengthen(best).assign(method=PAPER_LOOP), start.melt(var_name="metric").assign(method=ORIGINAL)]
    )
    shared = {"dataset": "validation", "n": len(study.validation), "seed": study.params.seed}
    write_results(study.params.slug, "figure6", frame.assign(**shared))
    return best.reset_index()


def record_iteration_ablation(study: Study, stage: Stage) -> pandas.DataFrame:
    """Write figures 7 and 12: validation metrics and the loop's health by iteration, and the iteration chosen."""
    loop = read_loop(stage)
    chosen = pandas.DataFrame({"metric": ["best_iteration"], "value": [float(loop.choice.best_iteration)]})
    long = pandas.concat([lengthen(loop.history[[*MAIN_METRICS, *HEALTH]]), chosen])
    shared = {"method": PAPER_LOOP, "dataset": "validation", "n": len(study.validation), "seed": study.params.seed}
    write_results(study.params.slug, "figure12", long.assign(**shared))
    return loop.history


def record_layer_ablation(study: Study, stage: Stage, original: Stage) -> pandas.DataFrame:
    """Write figure 8: validation F1 and utility kept by number of edited sublayers, and the number chosen."""
    table = pandas.read_csv(stage / "layers.csv").set_index("l_select")
    # Of tasks that the data do not have, nan.
    kept = share_kept(table, pandas.read_csv(original / "utility.csv").set_index("task")["value"])
    table = table.assign(kept=kept.mean(axis=1), kept_gsm=kept.get("gsm", float("nan")))
    shown = table[["f1", "strict_f1", "kept", "kept_gsm"]]
    chosen = pandas.DataFrame({"metric": ["chosen"], "value": [float(stage.manifest["parameters"]["l_select"])]})
    long = pandas.concat([lengthen(shown, keep_missing=True), chosen])
    long["n"] = long["metric"].str.startswith("kept").map({True: len(study.tasks), False: len(study.validation)})
    shared = {"method": PAPER_LOOP, "dataset": "validation", "seed": study.params.seed}
    write_results(study.params.slug, "figure8", long.assign(**shared))
    return table


def record_judges(study: Study, stage: Stage, agreement: pandas.DataFrame) -> pandas.DataFrame:
    """Write figure 11, rates by iteration under one judge and under two, and the judges' agreement."""
    histories = pandas.read_csv(stage / "histories.csv").set_index("iteration")
    rates = [name for name in histories if name.endswith(("_asr", "_orr")) or name == "strict_f1"]
    tables = [
        lengthen(history[rates]).assign(method=judges) for judges, history in histories.groupby("judges", sort=False)
    ]
    shared = {"dataset": "validation", "n": len(study.validation), "seed": study.params.seed}
    write_results(study.params.slug, "figure11", pandas.concat(tables).assign(**shared))
    keys = ["method", "dataset", "first", "second", "n"]
    long = lengthen(agreement.rename(columns={"label": "dataset"}).set_index(keys))
    write_results(study.params.slug, "judges", long.assign(seed=study.params.seed))
    return histories


def record_noise(study: Study, stage: Stage) -> pandas.DataFrame:
    """Write what the metrics make of a model with noise on its weights."""
    table = pandas.read_csv(stage / "noise.csv")
    write_long(study, "noise", table.set_index("noise")[[*MAIN_METRICS, "balanced_accuracy"]], method="Noised")
    return table


def record_shortcuts(study: Study, stage: Stage) -> pandas.DataFrame:
    """Write the shortcut control: means over sublayers of v_b's accuracies and cosine, by pair of sets learnt from."""
    table = pandas.read_csv(stage / "shortcuts.csv")
    means = table.groupby(["benign_set", "toxic_set"])[["seen_accuracy", "unseen_accuracy", "cosine"]].mean()
    write_long(study, "shortcuts", means, method="Original")
    return means
