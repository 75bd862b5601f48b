"""The stages of a study, each cached: what the notebooks call."""

import json
from pathlib import Path

import numpy
import pandas
from safetensors.numpy import load_file, save_file

from llmva.activations import FINAL, Capture
from llmva.alignment import Alignment, align, save_observation
from llmva.degeneracy import DegeneracyCheck
from llmva.edits import EditedModel, EditLog
from llmva.examination import answer_labels, benign_labels
from llmva.judges import judge_responses
from llmva.prompts import (
    assign_splits,
    describe_pool,
    draw_candidates,
    draw_sample,
    errors_first_pool,
    read_candidates,
    require_two_classes,
)
from llmva.provenance import digest, random_generator
from llmva.readers import read_activations_of, read_labelled_verdicts, read_verdicts
from llmva.steering import METHODS, SteeringMethod, tune
from llmva.store import Stage, run_stage
from llmva.study import PROMPTS_STAGE, Study
from llmva.utility import measure_utility, read_tasks
from llmva.vectors import permuted_angles, solver_difference

VERSION = 1


def collect_prompts(study: Study) -> Stage:
    """Answer the candidate prompts with the original model and keep a pool per set, errors first.

    Writes `prompts.csv`, and of all candidates `responses.csv` and `verdicts.csv`; the manifest
    records the pool's counts and digests and the limit of the check for broken language.
    """
    params = study.params
    candidates = read_candidates(params.data)
    require_two_classes(candidates, params.data)
    drawn = draw_candidates(candidates, params.candidates, params.seed)
    drawn["split"] = assign_splits(drawn, params.seed)

    def compute(place: Path) -> dict:
        answered = study.plain_examiner.examine(drawn, progress="replies of the original model").rows
        exchanges = answered[[*drawn.columns, "response"]]
        check = DegeneracyCheck.calibrated(
            study.chat_model, exchanges["prompt"].tolist(), exchanges["response"].tolist(), params.batch_size
        )
        verdicts = judge_responses(exchanges, study.judge, cache=study.plain_examiner.cache, degeneracy=check)
        wrong = is_wrong(drawn.merge(verdicts, on="id", validate="one_to_one"))
        pool = errors_first_pool(drawn, wrong, size=params.pool_size, error_share=params.error_share, seed=params.seed)
        exchanges[["id", "response"]].to_csv(place / "responses.csv", index=False)
        verdicts.to_csv(place / "verdicts.csv", index=False)
        pool.to_csv(place / "prompts.csv", index=False)
        return {"surprise_limit": check.limit, **describe_pool(pool)}

    parameters = study.identity("seed", "candidates", "pool_size", "error_share")
    parameters["prompts"] = digest(drawn[["id", "label", "group"]].to_numpy().tolist())
    return run_stage(study.folder / PROMPTS_STAGE, compute, parameters=parameters, version=VERSION)


def is_wrong(rows: pandas.DataFrame) -> pandas.Series:
    """Return, by id, whether a reply is wrong: anything but answering the benign and refusing the toxic."""
    right = numpy.where(rows["label"] == "benign", rows["verdict"] == "answered", rows["verdict"] == "refused")
    return pandas.Series(~right, index=rows["id"])


def observe_original(study: Study) -> Stage:
    """Capture the original model's activations, fit all vectors, and draw the permuted-label null.

    Writes an observation (see `alignment.save_observation`), `activations.safetensors` with the
    outputs by sublayer, and `null_angles.csv`: angle by sublayer and draw.
    """
    params = study.params

    def compute(place: Path) -> None:
        sample = draw_sample(study.pool, params.sample_per_dataset, params.seed, 0)
        examined = study.examiner.examine(pandas.concat([sample, study.validation], ignore_index=True), Capture())
        save_observation(place, examined, params.solver, params.penalty)
        outputs = examined.activations.outputs
        save_file(
            {name: numpy.ascontiguousarray(values) for name, values in outputs.items()},
            place / "activations.safetensors",
        )
        train = (examined.rows["split"] == "train").to_numpy()
        labels = benign_labels(examined.rows).to_numpy()[train], answer_labels(examined.rows).to_numpy()[train]
        null = {
            name: permuted_angles(
                values[train],
                *labels,
                draws=params.null_draws,
                generator=random_generator(params.seed, "null", name),
                penalty=params.penalty,
            )
            for name, values in outputs.items()
            if name != FINAL
        }
        pandas.DataFrame(null).to_csv(place / "null_angles.csv", index_label="draw")

    parameters = study.identity("seed", "sample_per_dataset", "solver", "penalty", "null_draws")
    return run_stage(
        study.folder / "01_orthogonality",
        compute,
        parameters=parameters,
        upstream=[study.prompts_stage],
        version=VERSION,
    )


def compare_solvers(study: Study, observed: Stage) -> Stage:
    """Fit every sublayer's SVMs with both solvers.

    Writes `solvers.csv`: by sublayer and for the final stream, over the two vectors, the largest angle
    between the solvers' solutions and by how much liblinear's objective exceeds the exact one, as a
    share of it; and whether each solver says that it converged.
    """

    def compute(place: Path) -> None:
        rows = read_labelled_verdicts(study, observed)
        train = (rows["split"] == "train").to_numpy()
        labels = numpy.column_stack([benign_labels(rows), answer_labels(rows)])[train]
        compared = {
            name: solver_difference(features[train], labels, study.params.penalty)
            for name, features in read_activations_of(observed).items()
        }
        table = pandas.DataFrame.from_dict(compared, orient="index")
        table.to_csv(place / "solvers.csv", index_label="sublayer")

    return run_stage(
        study.folder / "02_svm_identification",
        compute,
        parameters={"penalty": study.params.penalty},
        upstream=[observed],
        version=2,
    )


def probe_layers(study: Study) -> Stage:
    """Give each candidate L_select a few iterations and choose by validation.

    Writes `probes.csv` (l_select, iteration, validation metrics) and `choice.json` with `l_select`.
    A candidate larger than the number of sublayers counts as all of them.
    """
    params = study.params

    def compute(place: Path) -> None:
        count = len(study.chat_model.sublayers)
        candidates = sorted({min(candidate, count) for candidate in params.l_select_candidates})
        probes = {candidate: _align(study, candidate, params.probe_iterations).history for candidate in candidates}
        table = pandas.concat(probes, names=["l_select"]).reset_index()
        table.to_csv(place / "probes.csv", index=False)
        # Iteration 0 is the same model for all; the later ones tell the candidates apart, if there are any.
        later = table[table["iteration"] > 0]
        best = later.groupby("l_select")["strict_f1"].max() if len(later) else pandas.Series(0.0, index=candidates)
        choice = {"l_select": int(best.idxmax()), "sublayers": count}
        (place / "choice.json").write_text(json.dumps(choice) + "\n")

    fields = ("seed", "sample_per_dataset", "solver", "penalty", "l_select_candidates", "probe_iterations")
    return run_stage(
        study.folder / "03_layer_selection",
        compute,
        parameters=study.identity(*fields),
        upstream=[study.prompts_stage],
        version=VERSION,
    )


def run_alignment(study: Study, l_select: int) -> Stage:
    """Run the loop to the end.

    Writes `edit_log.safetensors`, `history.csv` (one row per iteration), `choice.json` (best
    iteration, why the loop stopped) and `plane.csv`: projections on the original's final v_b and
    v_a for the validation prompts, before and after.
    """
    params = study.params

    def compute(place: Path) -> None:
        alignment = _align(study, l_select, params.iterations, progress="alignment loop")
        alignment.log.save(place / "edit_log.safetensors", {"model": params.model, "slug": params.slug})
        alignment.history.to_csv(place / "history.csv")
        choice = {"best_iteration": alignment.best_iteration, "l_select": l_select, "stopped": alignment.stopped}
        (place / "choice.json").write_text(json.dumps(choice) + "\n")
        _plane(study, alignment).to_csv(place / "plane.csv", index=False)

    fields = ("seed", "sample_per_dataset", "solver", "penalty", "selection", "iterations")
    return run_stage(
        study.folder / "04_alignment_loop",
        compute,
        parameters={"l_select": l_select, **study.identity(*fields)},
        upstream=[study.prompts_stage],
        version=VERSION,
    )


def evaluate_methods(study: Study) -> dict[str, Stage]:
    """Evaluate every method of `steering.METHODS`, each tuned on validation with the same number of trials."""
    return {name: evaluate_method(study, method()) for name, method in METHODS.items()}


def evaluate_method(
    study: Study, method: SteeringMethod, *, setting: dict | None = None, upstream: tuple[Stage, ...] = ()
) -> Stage:
    """Fit and tune a method on training and validation prompts, then answer the test prompts once.

    Parameters
    ----------
    setting : dict, optional
        A setting that was already chosen on validation; without it the method is tuned here with
        `study.trials` trials.

    Returns
    -------
    Stage
        `trials.csv` (when tuned), `setting.json`, `responses.csv`, `verdicts.csv` (id, dataset, label,
        guard_verdict, verdict) of the test prompts, and `utility.csv` (task, accuracy, n; empty when the data
        bring no tasks).
    """
    params = study.params
    tasks = read_tasks(params.data)

    def compute(place: Path) -> None:
        chosen = setting if setting is not None else _tuned(study, method, place)
        (place / "setting.json").write_text(json.dumps(chosen) + "\n")
        with method.applied(study.chat_model, chosen):
            rows = study.examiner.examine(study.test).rows
            utility = measure_utility(
                study.chat_model, tasks, batch_size=params.batch_size, max_new_tokens=params.max_new_tokens
            )
        rows[["id", "response"]].to_csv(place / "responses.csv", index=False)
        rows[["id", "dataset", "label", "guard_verdict", "verdict", "raw"]].to_csv(place / "verdicts.csv", index=False)
        utility.to_csv(place / "utility.csv", index=False)

    folder = study.folder / "methods" / method.name.lower().replace("-", "_")
    parameters = {"method": method.name, "setting": setting, "trials": study.trials, **study.identity("seed")}
    parameters["tasks"] = digest(tasks.to_numpy().tolist())
    return run_stage(folder, compute, parameters=parameters, upstream=(study.prompts_stage, *upstream), version=VERSION)


def finish_results(study: Study, evaluated: dict[str, Stage]) -> Stage:
    """Mark the main results as finished: all methods' test verdicts in one table, `outcomes.csv`."""

    def compute(place: Path) -> None:
        tables = [read_verdicts(stage).assign(method=name) for name, stage in evaluated.items()]
        columns = ["method", "id", "dataset", "label", "guard_verdict", "verdict"]
        pandas.concat(tables)[columns].to_csv(place / "outcomes.csv", index=False)

    return run_stage(
        study.folder / "05_main_results",
        compute,
        parameters={"methods": list(evaluated)},
        upstream=tuple(evaluated.values()),
        version=VERSION,
    )


def _align(study: Study, l_select: int, iterations: int, progress: str | None = None) -> Alignment:
    return align(
        study.examiner,
        study.pool,
        study.settings(l_select, iterations),
        folder=study.folder / "iterations",
        upstream=(study.prompts_stage,),
        progress=progress or f"L_select {l_select}",
    )


def _tuned(study: Study, method: SteeringMethod, place: Path) -> dict:
    verdicts = pandas.read_csv(study.prompts_stage / "verdicts.csv", keep_default_na=False)
    training = study.pool[study.pool["split"] == "train"].merge(verdicts, on="id", validate="one_to_one")
    method.fit(study.chat_model, training, batch_size=study.params.batch_size)
    tuned = tune(method, study.examiner, study.validation, trials=study.trials, progress=f"tuning {method.name}")
    tuned.trials.to_csv(place / "trials.csv", index=False)
    return tuned.setting


def _plane(study: Study, alignment: Alignment) -> pandas.DataFrame:
    vectors = load_file(observe_original(study) / "vectors.safetensors")
    tables = []
    with EditedModel(study.chat_model.writers) as edited:
        for when, log in (("before", EditLog()), ("after", alignment.best_log)):
            edited.apply(log)
            examined = study.examiner.examine(study.validation, Capture(outputs=False))
            final = examined.activations.outputs[FINAL]
            table = examined.rows[["id", "dataset", "label", "verdict"]].copy()
            for kind in ("benign", "answer"):
                table[kind] = final @ vectors[f"{FINAL}/{kind}"]
            tables.append(table.assign(when=when))
    return pandas.concat(tables, ignore_index=True)
