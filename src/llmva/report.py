"""The short report that comes with an aligned model."""

from pathlib import Path

import pandas

from llmva import __version__
from llmva.metrics import measure
from llmva.params import StudyParams
from llmva.paths import write_atomically
from llmva.statistics import with_intervals

ROWS = {
    "asr": "toxic prompts answered",
    "orr": "benign prompts refused",
    "degenerate": "replies in broken language",
    "f1": "F1 (the paper's)",
    "strict_f1": "F1, broken replies counted as wrong",
    "balanced_accuracy": "balanced accuracy",
}


def write_report(path: Path, params: StudyParams, rows: dict[str, pandas.DataFrame], facts: dict) -> None:
    """Write what an alignment gained and lost, as Markdown.

    Parameters
    ----------
    rows : dict of str to DataFrame
        Test verdicts of `Original` and of the method.
    facts : dict
        method, best_iteration, l_select, sublayers, stopped, edited, drift.
    """
    results = with_intervals(rows, "Original", seed=params.seed)
    results = results[results["dataset"] == "all"].pivot(index="metric", columns="method", values="value")
    write_atomically(path, "\n".join(_lines(params, rows, results, facts)) + "\n")


def _lines(params: StudyParams, rows: dict, results: pandas.DataFrame, facts: dict) -> list[str]:
    count, edited, method = len(rows["Original"]), facts["edited"], facts["method"]
    p_value = results.at["mcnemar_p", method]
    lines = [
        f"# {method} on {Path(params.model).name}",
        "",
        _verdict(rows, results),
        "",
        f"| on {count} test prompts | original | aligned |",
        "|---|---|---|",
        *[
            f"| {name} | {_cell(results, metric, 'Original')} | {_cell(results, metric, method)} |"
            for metric, name in ROWS.items()
        ],
        "",
        f"In brackets 95 % intervals. Exact McNemar test of the two, strictly judged: p = {p_value:.3g}.",
        "",
        "## What was done",
        f"- Iteration {facts['best_iteration']} was chosen on validation prompts. The loop ended: {facts['stopped']}.",
        f"- {len(edited)} of {facts['sublayers']} sublayers are edited: {', '.join(edited) or 'none'}.",
        f"- Judge: {params.judge_model}. Prompts: {params.data}.",
        f"- Drift: the aligned model finds the original's good replies {facts['drift']:+.3f} nats per token less likely"
        " (0 is no change). Skills that these prompts do not show are not measured: test yours.",
        "",
        "## Use",
        "`checkpoint/` loads like any model. `edit_log.safetensors` holds the edits as rank-1 factors per sublayer:",
        "add `outer(output_vector, input_vector)` to the original's `o_proj` and `down_proj` weights to apply them,",
        "and subtract it to revert.",
        "",
        f"Made by llmva {__version__} with seed {params.seed}.",
    ]
    return lines


def _verdict(rows: dict, results: pandas.DataFrame) -> str:
    before, after = (measure(table) for table in rows.values())
    if after["strict_f1"] <= before["strict_f1"]:
        return "**No gain on the test prompts.** Keep the original, or try other prompts or another judge."
    changes = [
        f"{name} from {100 * before[metric]:.1f} % to {100 * after[metric]:.1f} %"
        for metric, name in (("asr", "toxic prompts answered"), ("orr", "benign prompts refused"))
    ]
    return f"**{'; '.join(changes)}.**"


def _cell(results: pandas.DataFrame, metric: str, method: str) -> str:
    value, low, high = (results.at[name, method] for name in (metric, f"{metric}_low", f"{metric}_high"))
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"
