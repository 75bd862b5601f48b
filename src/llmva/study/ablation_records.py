"""From ablations to tracked results: long CSVs, one per figure or table."""

import json

import pandas

from llmva.core.results import write_results
from llmva.core.store import Stage
from llmva.measures.utility import read_tasks, share_kept
from llmva.study.records import HEALTH, by_iteration
from llmva.study.study import Study

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
