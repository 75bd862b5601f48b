"""Every method on the same prompts: tuned on validation with equal trials, then tested once."""

import json
from collections.abc import Iterator
from pathlib import Path

import pandas

from llmva.loops import RELEASED, guarded_iteration, read_loop
from llmva.provenance import digest
from llmva.steering import METHODS, LlmVa, SteeringMethod, tune
from llmva.store import Stage, run_stage
from llmva.study import Study
from llmva.utility import measure_utility, read_tasks

VERSION = 1
CONSTANTS = {"Answer everything": "answered", "Refuse everything": "refused"}
OUTCOMES = ["method", "part", "id", "dataset", "label", "guard_verdict", "verdict", "raw"]


def evaluate_all(study: Study, loops: dict[str, Stage]) -> dict[str, Stage]:
    """Evaluate the constants, every method of `steering.METHODS`, and the finished loops.

    Parameters
    ----------
    loops : dict of str to Stage
        Finished loops by the name of their row, "LLM-VA" among them; its log also gives "LLM-VA (guarded)".
    """
    stages = {"Constant": evaluate_constants(study)}
    stages |= {name: evaluate_method(study, method()) for name, method in METHODS.items()}
    for method, setting, loop in _loop_methods(loops):
        stages[method.name] = evaluate_method(study, method, setting=setting, upstream=(loop,))
    return stages


def evaluate_method(
    study: Study, method: SteeringMethod, *, setting: dict | None = None, upstream: tuple[Stage, ...] = ()
) -> Stage:
    """Fit and tune a method on training and validation prompts, then let it answer the test prompts once.

    Parameters
    ----------
    setting : dict, optional
        A setting that was already chosen on validation; without it the method is tuned here with
        `study.trials` trials.

    Returns
    -------
    Stage
        `outcomes.csv`: method, part (test or transfer), id, dataset, label, guard_verdict, verdict, raw;
        `responses.csv`: method, part, id, response; `utility.csv`: method, task, metric, value, n,
        unreadable; `settings.json`: the chosen setting by method; and, when tuned, `trials.csv`. A method with
        variants has the rows of its best setting under its name, and those of each variant under "name (variant)".
    """
    tasks = read_tasks(study.params.data)

    def compute(place: Path) -> None:
        settings = {method.name: setting} if setting is not None else _tuned(study, method, place)
        (place / "settings.json").write_text(json.dumps(settings, indent=1) + "\n")
        measured = {}
        for name, chosen in settings.items():
            # The best setting is the best of its variant too, and is measured once.
            key = json.dumps(chosen)
            if key not in measured:
                measured[key] = _measure(study, method, chosen, tasks)
            outcomes, utility = measured[key]
            _append(place / "outcomes.csv", outcomes.assign(method=name)[OUTCOMES])
            _append(place / "responses.csv", outcomes.assign(method=name)[["method", "part", "id", "response"]])
            _append(place / "utility.csv", utility.assign(method=name)[["method", *utility.columns]])

    parameters = {
        "method": method.name,
        "setting": setting,
        "trials": study.trials,
        "tasks": digest(tasks.to_numpy().tolist()),
        "transfer": digest(study.transfer["id"].tolist()),
        **study.identity("seed"),
    }
    return run_stage(
        study.folder / "methods" / stage_name(method.name),
        compute,
        parameters=parameters,
        upstream=(study.prompts_stage, *upstream),
        version=method.version,
    )


def evaluate_constants(study: Study) -> Stage:
    """Write down the outcomes of answering everything and of refusing everything, which need no model.

    A reply that never looks at its prompt solves no task: their utility is 0.
    """
    tasks = read_tasks(study.params.data)
    prompts = _prompts(study)
    failed = tasks.groupby("task", sort=False).size().rename("n").reset_index().assign(value=0.0)
    failed["metric"] = ["accuracy" if task == "gsm" else "f1" for task in failed["task"]]
    failed = failed.assign(unreadable=1.0)[["task", "metric", "value", "n", "unreadable"]]

    def compute(place: Path) -> None:
        for name, verdict in CONSTANTS.items():
            rows = prompts.assign(method=name, guard_verdict=verdict, verdict=verdict, raw="")
            _append(place / "outcomes.csv", rows[OUTCOMES])
            _append(place / "utility.csv", failed.assign(method=name)[["method", *failed.columns]])
        (place / "settings.json").write_text(json.dumps(dict.fromkeys(CONSTANTS, {})) + "\n")

    parameters = {"tasks": digest(tasks.to_numpy().tolist()), "prompts": digest(prompts["id"].tolist())}
    return run_stage(study.folder / "methods" / "constant", compute, parameters=parameters, version=VERSION)


def finish_results(study: Study, evaluated: dict[str, Stage], name: str) -> Stage:
    """Mark a notebook's results as finished, in the folder of its name: all methods' outcomes, `outcomes.csv`."""

    def compute(place: Path) -> None:
        tables = [pandas.read_csv(stage / "outcomes.csv", keep_default_na=False) for stage in evaluated.values()]
        pandas.concat(tables)[OUTCOMES].to_csv(place / "outcomes.csv", index=False)

    return run_stage(
        study.folder / name,
        compute,
        parameters={"methods": list(evaluated)},
        upstream=tuple(evaluated.values()),
        version=VERSION,
    )


def stage_name(method: str) -> str:
    """Return the name of a method's folder: letters and digits of its name, "+" in words."""
    words = method.lower().replace("+", " plus ")
    return "_".join("".join(letter if letter.isalnum() else " " for letter in words).split())


def _loop_methods(loops: dict[str, Stage]) -> Iterator[tuple[LlmVa, dict, Stage]]:
    for name, stage in loops.items():
        log, choice, _ = read_loop(stage)
        rounding = RELEASED.changes["rounding"] if name == RELEASED.name else "none"
        yield LlmVa(log, name, rounding), {"iteration": choice["best_iteration"]}, stage
        if name == "LLM-VA":
            yield LlmVa(log, "LLM-VA (guarded)"), {"iteration": guarded_iteration(stage)}, stage


def _tuned(study: Study, method: SteeringMethod, place: Path) -> dict[str, dict]:
    method.fit(study.training)
    tuned = tune(method, study.examiner, study.validation, trials=study.trials, progress=f"tuning {method.name}")
    tuned.trials.to_csv(place / "trials.csv", index=False)
    return {method.name: tuned.setting, **{f"{method.name} ({name})": best for name, best in tuned.variants.items()}}


def _measure(
    study: Study, method: SteeringMethod, setting: dict, tasks: pandas.DataFrame
) -> tuple[pandas.DataFrame, pandas.DataFrame]:
    generation = study.params.generation
    with method.applied(study.chat_model, setting):
        outcomes = study.examiner.examine(_prompts(study)).rows
        utility = measure_utility(
            study.chat_model, tasks, batch_size=generation.batch_size, max_new_tokens=generation.max_new_tokens
        )
    return outcomes, utility


def _prompts(study: Study) -> pandas.DataFrame:
    parts = {"test": study.test, "transfer": study.transfer}
    columns = ["part", "id", "dataset", "label", "prompt"]
    return pandas.concat([rows.assign(part=name)[columns] for name, rows in parts.items()], ignore_index=True)


def _append(path: Path, table: pandas.DataFrame) -> None:
    table.to_csv(path, mode="a", header=not path.exists(), index=False)
