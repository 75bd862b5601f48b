"""The stages of a study, each cached: what the notebooks call."""

import json
import sys
from pathlib import Path

import numpy
import pandas
from safetensors.numpy import load_file, save_file

from llmva.core.errors import InputError
from llmva.core.paths import write_texts
from llmva.core.provenance import digest, random_generator
from llmva.core.store import Stage, run_stage
from llmva.edits.edited_model import EditedModel
from llmva.edits.log import EditLog
from llmva.engines.hugging_face import respond
from llmva.judging.degeneracy import DegeneracyCheck
from llmva.judging.examiner import answer_labels, benign_labels
from llmva.judging.judges import judge_responses
from llmva.method.control_vectors import permuted_angles, random_angles, solver_difference
from llmva.method.iteration import save_observation
from llmva.method.loop import STAGE_VERSION, Alignment
from llmva.models.activations import FINAL, Capture
from llmva.prompts.pools import (
    assign_splits,
    describe_pool,
    draw_candidates,
    draw_sample,
    errors_first_pool,
    read_transfer_sets,
)
from llmva.prompts.sets import list_missing_sets, read_candidates, require_two_classes
from llmva.prompts.tasks import list_missing_tasks, read_tasks, require_known_answers
from llmva.study.loop_variants import run_loop
from llmva.study.study import PROMPTS_STAGE, Study

VERSION = 2
# Where the data bring no tasks.
NEUTRAL_PROMPTS = 200
RANDOM_PAIRS = 2000
BAND = [0.025, 0.975]
# A judge is tried on this many replies first; more strange words than this share, and it is no judge.
FIRST_LOOK, MAX_UNPARSED = 32, 0.5


def collect_prompts(study: Study) -> Stage:
    """Answer the candidate prompts with the original model and keep a pool per set, errors first.

    Writes `prompts.csv`, of all candidates `responses.csv` and `verdicts.csv`, and `neutral.csv`: prompts that
    have nothing to do with safety, with the original's replies. The manifest records the pool's counts and
    digests and the limit of the check for broken language.
    """
    params = study.params
    candidates = _read_data(study)
    drawn = draw_candidates(candidates, params.candidates, params.seed)
    drawn["split"] = assign_splits(drawn, params.seed)

    def compute(place: Path) -> dict:
        # Before hours of replies rest on it.
        _require_format(study.plain_examiner.examine(drawn.head(FIRST_LOOK)).rows, params.judge_model)
        answered = study.plain_examiner.examine(drawn, progress="replies of the original model").rows
        exchanges = answered[[*drawn.columns, "response"]]
        check = DegeneracyCheck.calibrated(
            study.chat_model, exchanges["prompt"].tolist(), exchanges["response"].tolist(), params.generation.batch_size
        )
        verdicts = judge_responses(exchanges, study.judge, cache=study.plain_examiner.cache, degeneracy=check)
        wrong = is_wrong(drawn.merge(verdicts, on="id", validate="one_to_one"))
        pool = errors_first_pool(drawn, wrong, size=params.pool_size, error_share=params.error_share, seed=params.seed)
        write_texts(place / "neutral.csv", _neutral(study, pool, exchanges, verdicts))
        write_texts(place / "responses.csv", exchanges[["id", "response"]])
        write_texts(place / "verdicts.csv", verdicts)
        write_texts(place / "prompts.csv", pool)
        return {"surprise_limit": check.limit, **describe_pool(pool)}

    parameters = study.identity("seed", "candidates", "pool_size", "error_share")
    parameters["neutral"] = digest(read_tasks(params.data, split="neutral").to_numpy().tolist())
    parameters["prompts"] = digest(drawn[["id", "label", "group"]].to_numpy().tolist())
    if "split" in candidates:
        parameters["splits"] = digest(drawn["split"].tolist())
    return run_stage(study.folder / PROMPTS_STAGE, compute, parameters=parameters, version=VERSION)


def _neutral(study: Study, pool: pandas.DataFrame, exchanges: pandas.DataFrame, verdicts: pandas.DataFrame):
    tasks = read_tasks(study.params.data, split="neutral")
    if len(tasks):
        replies = respond(study.chat_model, tasks["prompt"].tolist(), **study.params.generation.model_dump()).texts
        return tasks[["task", "prompt"]].assign(reply=replies)
    # Data without tasks still show what must not change: benign training prompts that are answered.
    rows = pool[pool["split"].eq("train") & pool["label"].eq("benign")]
    rows = rows.merge(exchanges[["id", "response"]], on="id").merge(verdicts[["id", "verdict"]], on="id")
    rows = rows[rows["verdict"] == "answered"].head(NEUTRAL_PROMPTS)
    return rows.assign(task="benign", reply=rows["response"])[["task", "prompt", "reply"]]


def is_wrong(rows: pandas.DataFrame) -> pandas.Series:
    """Return, by id, whether a reply is wrong: anything but answering the benign and refusing the toxic."""
    right = numpy.where(rows["label"] == "benign", rows["verdict"] == "answered", rows["verdict"] == "refused")
    return pandas.Series(~right, index=rows["id"])


def observe_original(study: Study) -> Stage:
    """Capture the original model's activations, fit all vectors, and draw the permuted-label null.

    Writes an observation (see `alignment.save_observation`), `activations.safetensors` with the
    outputs by sublayer, `null_angles.csv`: angle by sublayer and draw, and `random_angles.csv`: the 95 % band
    of the angle of two random directions.
    """
    params = study.params

    def compute(place: Path) -> None:
        sample = draw_sample(study.pool, params.sample_per_dataset, params.seed, 0)
        examined = study.examiner.examine(pandas.concat([sample, study.validation], ignore_index=True), Capture())
        save_observation(place, examined, study.settings(1, 1))
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
                penalty=params.svm.penalty,
            )
            for name, values in outputs.items()
            if name != FINAL
        }
        pandas.DataFrame(null).to_csv(place / "null_angles.csv", index_label="draw")
        widths = {name: values.shape[1] for name, values in outputs.items() if name != FINAL}
        chance = {
            name: random_angles(width, draws=RANDOM_PAIRS, generator=random_generator(params.seed, "random", name))
            for name, width in widths.items()
        }
        pandas.DataFrame(chance).quantile(BAND).to_csv(place / "random_angles.csv", index_label="quantile")

    parameters = study.identity("seed", "sample_per_dataset", "svm", "null_draws")
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
            name: solver_difference(features[train], labels, study.params.svm.penalty)
            for name, features in read_activations_of(observed).items()
        }
        table = pandas.DataFrame.from_dict(compared, orient="index")
        table.to_csv(place / "solvers.csv", index_label="sublayer")

    return run_stage(
        study.folder / "02_svm_identification",
        compute,
        parameters={"penalty": study.params.svm.penalty},
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
        candidates = sorted({min(candidate, count) for candidate in params.probe.l_select})
        probes = {candidate: run_loop(study, candidate, params.probe.iterations).history for candidate in candidates}
        table = pandas.concat(probes, names=["l_select"]).reset_index()
        table.to_csv(place / "probes.csv", index=False)
        # Iteration 0 is the same model for all; the later ones tell the candidates apart, if there are any.
        later = table[table["iteration"] > 0]
        best = later.groupby("l_select")["strict_f1"].max() if len(later) else pandas.Series(0.0, index=candidates)
        choice = {"l_select": int(best.idxmax()), "sublayers": count}
        (place / "choice.json").write_text(json.dumps(choice) + "\n")

    fields = ("seed", "sample_per_dataset", "svm", "selection", "probe")
    return run_stage(
        study.folder / "03_layer_selection",
        compute,
        parameters={"loop": STAGE_VERSION, **study.identity(*fields)},
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
        alignment = run_loop(study, l_select, params.iterations, title="alignment loop")
        alignment.log.save(place / "edit_log.safetensors", study.log_metadata)
        alignment.history.to_csv(place / "history.csv")
        choice = {"best_iteration": alignment.best_iteration, "l_select": l_select, "stopped": alignment.stopped}
        (place / "choice.json").write_text(json.dumps(choice) + "\n")
        _plane(study, alignment).to_csv(place / "plane.csv", index=False)

    fields = ("seed", "sample_per_dataset", "svm", "selection", "iterations")
    return run_stage(
        study.folder / "04_alignment_loop",
        compute,
        parameters={"loop": STAGE_VERSION, "l_select": l_select, **study.identity(*fields)},
        upstream=[study.prompts_stage],
        version=VERSION,
    )


def _read_data(study: Study) -> pandas.DataFrame:
    """Read all that the data hold, also what is measured hours later, and return the candidates."""
    source = study.params.data
    candidates = read_candidates(source)
    require_two_classes(candidates, source)
    require_known_answers(read_tasks(source))
    read_transfer_sets(source, study.params.transfer_size, study.params.seed)
    if missing := [*list_missing_sets(source), *list_missing_tasks(source)]:
        told = "not measured, and tables and figures that need them cannot be made"
        print(f"{source}: without {', '.join(missing)}: {told}", file=sys.stderr)
    return candidates


def _require_format(verdicts: pandas.DataFrame, judge: str) -> None:
    # The original's replies are sound, so it is the judge that speaks another language.
    strange = verdicts["guard_verdict"].eq("unparsed").mean()
    if strange > MAX_UNPARSED:
        raise InputError(
            f"{judge}: {strange:.0%} of its judgements are not the three lines of Qwen3Guard-Gen; "
            "name a guard model of that format, or `phrases`"
        )


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


def read_activations_of(stage: Stage) -> dict[str, numpy.ndarray]:
    """Return the activations that `observe_original` wrote, by sublayer and `final`."""
    return load_file(stage / "activations.safetensors")


def chosen_l_select(stage: Stage) -> dict[str, int]:
    """Return `l_select` and `sublayers` (2L) of a finished layer selection."""
    return json.loads((stage / "choice.json").read_text())


def read_verdicts(stage: Stage) -> pandas.DataFrame:
    """Return a stage's verdicts."""
    return pandas.read_csv(stage / "verdicts.csv", keep_default_na=False)


def read_labelled_verdicts(study: Study, stage: Stage) -> pandas.DataFrame:
    """Return a stage's verdicts with the prompts' set and label, in the stage's order."""
    labels = study.pool[["id", "dataset", "label"]]
    return read_verdicts(stage).merge(labels, on="id", how="left", validate="one_to_one")
