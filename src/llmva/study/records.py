"""From stages to the tracked result files: what each display item needs, in long format."""

import json

import pandas

from llmva.core.errors import InputError
from llmva.core.results import write_results
from llmva.core.store import Stage
from llmva.core.vocabulary import ERROR_RATE, LOOPS
from llmva.measures.intervals import with_intervals
from llmva.measures.metrics import correct
from llmva.measures.utility import share_kept
from llmva.method.iteration import read_observation
from llmva.prompts.tasks import read_tasks
from llmva.steering.llm_va import LlmVa
from llmva.steering.registry import METHODS
from llmva.study.evaluation import read_outcomes, read_utility
from llmva.study.stages import chosen_l_select, read_activations_of, read_labelled_verdicts, read_verdicts
from llmva.study.study import Study

# What goes on inside a loop, beside its rates.
HEALTH = ("mean_angle", "mean_scale", "mean_accuracy_answer", "divergence")
NULL_QUANTILES = {"low": 0.025, "high": 0.975}
PLANE_GROUPS = {"normal": 0, "over-refusal": 1, "jailbreak": 2, "broken": 3}


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
    table = read_observation(observed).sublayers
    null = pandas.read_csv(observed / "null_angles.csv", index_col="draw")
    chance = pandas.read_csv(observed / "random_angles.csv", index_col="quantile")
    rows = []
    for name in table.index:
        rows.append((f"angle.{name}", table.at[name, "angle"]))
        rows.append((f"angle_null_mean.{name}", null[name].mean()))
        for side, quantile in NULL_QUANTILES.items():
            rows.append((f"angle_null_{side}.{name}", null[name].quantile(quantile)))
            rows.append((f"angle_random_{side}.{name}", chance.at[quantile, name]))
    frame = pandas.DataFrame(rows, columns=["metric", "value"]).assign(
        method="Original", dataset="train", n=_training_rows(observed), seed=study.params.seed
    )
    write_results(study.params.slug, "figure9", frame)
    return frame


def record_projections(study: Study, observed: Stage, sublayers: list[str]) -> pandas.DataFrame:
    """Write figure 2: the held-out prompts' projections on v_b and v_a at some sublayers.

    Of the prompts that an SVM was fitted to, separation says nothing.
    """
    activations, observation = read_activations_of(observed), read_observation(observed)
    rows = read_labelled_verdicts(study, observed)
    held_out = (rows["split"] == "validation").to_numpy()
    rows = rows[held_out]
    tables = []
    for name in sublayers:
        for kind in ("benign", "answer"):
            # Four decimals: a point in a histogram needs no more, and the file is tracked.
            projected = (activations[name][held_out] @ getattr(observation.vectors[name], kind)).round(4)
            metric = [f"{kind}_projection.{name}.{verdict}" for verdict in rows["guard_verdict"]]
            tables.append(pandas.DataFrame({"dataset": rows["dataset"], "metric": metric, "value": projected}))
    frame = pandas.concat(tables, ignore_index=True).assign(method="Original", n=1, seed=study.params.seed)
    write_results(study.params.slug, "figure2", frame)
    return frame


def record_layer_selection(study: Study, observed: Stage, probed: Stage) -> pandas.DataFrame:
    """Write figure 10, the scores of Eq. 6 by sublayer, and table 3, the chosen L_select."""
    table = read_observation(observed).sublayers
    scores = pandas.DataFrame({"metric": [f"score.{name}" for name in table.index], "value": table["score"].to_numpy()})
    shared = {"dataset": "validation", "seed": study.params.seed}
    scores = scores.assign(method="Original", n=len(study.validation), **shared)
    write_results(study.params.slug, "figure10", scores)
    choice = chosen_l_select(probed)
    values = {**choice, "share": choice["l_select"] / choice["sublayers"]}
    chosen = pandas.DataFrame({"metric": list(values), "value": list(values.values())})
    write_results(study.params.slug, "table3", chosen.assign(method="LLM-VA", n=len(study.validation), **shared))
    return scores


def record_plane(study: Study, aligned: Stage) -> pandas.DataFrame:
    """Write figure 3: each validation prompt's place in the plane of v_b and v_a, before and after."""
    plane = pandas.read_csv(aligned / "plane.csv", keep_default_na=False)
    plane["group"] = [
        PLANE_GROUPS[_group(label, verdict)] for label, verdict in zip(plane["label"], plane["verdict"], strict=True)
    ]
    plane["method"] = plane["when"].map({"before": "Original", "after": "LLM-VA"})
    plane[["benign", "answer"]] = plane[["benign", "answer"]].round(4)
    columns = {"benign": "benign_projection", "answer": "answer_projection", "group": "group"}
    long = plane.melt(["id", "dataset", "method"], list(columns), "kind", "value")
    long["metric"] = long["kind"].map(columns) + "." + long["id"]
    frame = long[["method", "dataset", "metric", "value"]].assign(n=1, seed=study.params.seed)
    write_results(study.params.slug, "figure3", frame)
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
    """Write the loop's validation metrics and means by iteration, as `<metric>.<iteration>`."""
    history = pandas.read_csv(aligned / "history.csv", index_col="iteration")
    frame = by_iteration(history).assign(
        method="LLM-VA", dataset="validation", n=len(study.validation), seed=study.params.seed
    )
    write_results(study.params.slug, "history", frame)
    return history


def by_iteration(history: pandas.DataFrame) -> pandas.DataFrame:
    """Return a history, indexed by iteration, as metric (`<name>.<iteration>`) and value."""
    long = history.rename_axis("iteration").reset_index().melt("iteration", var_name="name", value_name="value")
    long["metric"] = long["name"] + "." + long["iteration"].map("{:03d}".format)
    return long.dropna()[["metric", "value"]]


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
        return "broken"
    if label == "benign":
        return "normal" if verdict == "answered" else "over-refusal"
    return "normal" if verdict == "refused" else "jailbreak"


def _training_rows(observed: Stage) -> int:
    return int((read_verdicts(observed)["split"] == "train").sum())


MAIN_METRICS = ["f1", "strict_f1", "asr", "orr", "degenerate"]


def record_angle_ablation(study: Study, stage: Stage) -> pandas.DataFrame:
    """Write figure 6: the best validation F1 of each run by degrees and draw."""
    runs = pandas.read_csv(stage / "angles.csv")
    start = runs[runs["iteration"] == 0].iloc[0]
    best = runs.groupby(["degrees", "draw"])[["f1", "strict_f1"]].max().reset_index()
    rows = [(f"original_{metric}", start[metric]) for metric in ("f1", "strict_f1")]
    for row in best.itertuples():
        rows += [(f"{name}.{row.degrees:03d}.{row.draw}", getattr(row, name)) for name in ("f1", "strict_f1")]
    _write(study, "figure6", pandas.DataFrame(rows, columns=["metric", "value"]))
    return best


def record_iteration_ablation(study: Study, stage: Stage) -> pandas.DataFrame:
    """Write figures 7 and 12: validation metrics and the loop's health by iteration."""
    history = pandas.read_csv(stage / "history.csv", index_col="iteration")
    chosen = json.loads((stage / "choice.json").read_text())["best_iteration"]
    best = pandas.DataFrame({"metric": ["best_iteration"], "value": [float(chosen)]})
    _write(study, "figure12", pandas.concat([best, by_iteration(history[[*MAIN_METRICS, *HEALTH]])]))
    return history


def record_layer_ablation(study: Study, stage: Stage, l_select: int) -> pandas.DataFrame:
    """Write figure 8: validation F1 and utility kept by number of edited sublayers."""
    table = pandas.read_csv(stage / "layers.csv").set_index("l_select")
    # Of tasks that the data do not have, nan.
    kept = share_kept(table, _original_utility(study))
    table = table.assign(kept=kept.mean(axis=1), kept_gsm=kept.get("gsm", float("nan")))
    long = table[["f1", "strict_f1", "kept", "kept_gsm"]].melt(ignore_index=False).reset_index()
    long["metric"] = long["variable"] + "." + long["l_select"].astype(str)
    chosen = pandas.DataFrame({"metric": ["chosen"], "value": [float(l_select)]})
    rows = pandas.concat([chosen, long[["metric", "value"]]])
    validation, tasks = len(study.validation), len(read_tasks(study.params.data))
    _write(study, "figure8", rows, n=[tasks if name.startswith("kept") else validation for name in rows["metric"]])
    return table


def record_judges(study: Study, stage: Stage, agreement: pandas.DataFrame) -> pandas.DataFrame:
    """Write figure 11, rates by iteration under one judge and under two, and the judges' agreement."""
    histories = pandas.read_csv(stage / "histories.csv").set_index("iteration")
    tables = []
    for judges, history in histories.groupby("judges", sort=False):
        rates = [name for name in history if name.endswith(("_asr", "_orr")) or name == "strict_f1"]
        tables.append(by_iteration(history[rates]).assign(method=judges))
    _write(study, "figure11", pandas.concat(tables))
    long = agreement.melt(["method", "label", "first", "second", "n"], ["kappa", "agreement"], "name")
    long["metric"] = long["name"] + "." + long["first"] + " and " + long["second"]
    rows = long.rename(columns={"label": "dataset"}).dropna()[["method", "dataset", "metric", "value", "n"]]
    write_results(study.params.slug, "judges", rows.assign(seed=study.params.seed))
    return histories


def record_noise(study: Study, stage: Stage) -> pandas.DataFrame:
    """Write what the metrics make of a model with noise on its weights."""
    table = pandas.read_csv(stage / "noise.csv")
    long = table[["noise", *MAIN_METRICS, "balanced_accuracy"]].melt("noise")
    long["metric"] = long["variable"] + "." + long["noise"].map("{:.1f}".format)
    _write(study, "noise", long[["metric", "value"]].assign(method="Noised"))
    return table


def record_shortcuts(study: Study, stage: Stage) -> pandas.DataFrame:
    """Write the shortcut control: means over sublayers of v_b's accuracies and cosine, by pair of sets learnt from."""
    table = pandas.read_csv(stage / "shortcuts.csv")
    means = table.groupby(["benign_set", "toxic_set"])[["seen_accuracy", "unseen_accuracy", "cosine"]].mean()
    long = means.reset_index().melt(["benign_set", "toxic_set"])
    long["metric"] = long["variable"] + "." + long["benign_set"] + " and " + long["toxic_set"]
    _write(study, "shortcuts", long[["metric", "value"]].assign(method="Original"))
    return means


def _original_utility(study: Study) -> pandas.Series:
    table = pandas.read_csv(study.folder / "methods" / "original" / "utility.csv")
    return table.set_index("task")["value"]


def _write(study: Study, item: str, rows: pandas.DataFrame, n: list[int] | None = None) -> None:
    frame = rows.assign(dataset="validation", n=n or len(study.validation), seed=study.params.seed)
    if "method" not in frame:
        frame = frame.assign(method="LLM-VA")
    write_results(study.params.slug, item, frame)
