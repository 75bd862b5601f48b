"""The stages of a study, each cached: what the notebooks call."""

import sys
from pathlib import Path

import numpy
import pandas
from safetensors.numpy import load_file, save_file

from llmva.core.errors import InputError
from llmva.core.paths import write_texts
from llmva.core.provenance import digest, random_generator
from llmva.core.store import Stage
from llmva.core.vocabulary import REPLY_TASK
from llmva.judging.degeneracy import DegeneracyCheck
from llmva.judging.examiner import answer_labels, benign_labels
from llmva.judging.thinking import UNFINISHED
from llmva.measures.metrics import correct
from llmva.method.control_vectors import permuted_angles, random_angles, solver_difference
from llmva.method.iteration import save_observation
from llmva.models.activations import FINAL, Capture
from llmva.models.batches import require_finite_pass
from llmva.models.chat_model import encode_chats
from llmva.models.templates import CLOSED_THINKING
from llmva.prompts.pools import (
    assign_splits,
    describe_pool,
    draw_candidates,
    draw_sample,
    errors_first_pool,
    read_transfer_sets,
)
from llmva.prompts.sets import list_missing_sets, read_candidates, require_every_split, require_two_classes
from llmva.prompts.tasks import list_missing_tasks, read_tasks, require_known_answers
from llmva.study.side_by_side import begin_processes
from llmva.study.study import PROMPTS_STAGE, Study

# Where the data bring no tasks.
NEUTRAL_PROMPTS = 200
RANDOM_PAIRS = 2000
BAND = [0.025, 0.975]
# A judge is tried on this many replies first; more strange words than this share, and it is no judge.
FIRST_LOOK, MAX_UNPARSED = 32, 0.5


def collect_prompts(study: Study) -> Stage:
    """Answer the candidate prompts with the original model and keep a pool per set, errors first.

    Writes `prompts.csv`, of all candidates `responses.csv` and `verdicts.csv`, and `neutral.csv`: prompts that
    have nothing to do with safety, with the original's replies. Where the data have the task `REPLY_TASK`, its test
    prompts are answered too, in `neutral_test.csv`. The manifest records the pool's counts and digests and the limit
    of the check for broken language.
    """
    params = study.params
    candidates = _read_data(study)
    _require_sets(study, candidates)
    drawn = draw_candidates(candidates, params.candidates, params.seed)
    drawn["split"] = assign_splits(drawn, params.seed)
    require_every_split(drawn, params.data)
    kept = study.tasks[study.tasks["task"] == REPLY_TASK]

    def compute(folder: Path) -> dict:
        begin_processes()
        _require_short(study, drawn)
        require_finite_pass(study.chat_model, encode_chats(study.chat_model.tokenizer, drawn["prompt"][:1].tolist()))
        # Before hours of replies rest on it.
        first = study.plain_examiner.examine(drawn.head(FIRST_LOOK)).rows
        _require_thinking(study, first)
        _require_format(first, params.judge_model)
        answered = study.plain_examiner.examine(drawn, progress="replies of the original model").rows
        exchanges = answered[[*drawn.columns, "response"]]
        check = DegeneracyCheck.calibrated(
            study.chat_model,
            exchanges["prompt"].tolist(),
            exchanges["response"].tolist(),
            params.generation.batch_size,
            study.surprises,
        )
        verdicts = study.plain_examiner.judge_responses(exchanges, check)
        _tell_unfinished(verdicts)
        wrong = ~correct(drawn.merge(verdicts, on="id", validate="one_to_one"))
        pool = errors_first_pool(drawn, wrong, size=params.pool_size, error_share=params.error_share, seed=params.seed)
        require_every_split(pool, params.data)
        write_texts(folder / "neutral.csv", _neutral(study, pool, exchanges, verdicts))
        if len(kept):
            write_texts(folder / "neutral_test.csv", _answered(study, kept))
        write_texts(folder / "responses.csv", exchanges[["id", "response"]])
        write_texts(folder / "verdicts.csv", verdicts)
        write_texts(folder / "prompts.csv", pool)
        return {"surprise_limit": check.limit, **describe_pool(pool)}

    parameters = {
        "neutral": digest(read_tasks(params.data, split="neutral").to_numpy().tolist()),
        "prompts": digest(drawn[["id", "label", "group"]].to_numpy().tolist()),
    }
    if "split" in candidates:
        parameters["splits"] = digest(drawn["split"].tolist())
    if len(kept):
        parameters["neutral_test"] = digest(kept["prompt"].tolist())
    fields = ("seed", "candidates", "pool_size", "error_share")
    return study.stage(PROMPTS_STAGE, compute, fields=fields, upstream=(), version=2, **parameters)


def _neutral(study: Study, pool: pandas.DataFrame, exchanges: pandas.DataFrame, verdicts: pandas.DataFrame):
    tasks = read_tasks(study.params.data, split="neutral")
    if len(tasks):
        return _answered(study, tasks)
    # Data without tasks still show what must not change: benign training prompts that are answered.
    rows = pool[pool["split"].eq("train") & pool["label"].eq("benign")]
    rows = rows.merge(exchanges[["id", "response"]], on="id").merge(verdicts[["id", "verdict"]], on="id")
    rows = rows[rows["verdict"] == "answered"].head(NEUTRAL_PROMPTS)
    return rows.assign(task="benign", reply=rows["response"])[["task", "prompt", "reply"]]


def _answered(study: Study, tasks: pandas.DataFrame) -> pandas.DataFrame:
    options = study.params.generation.model_dump()
    replies = study.engine(study.chat_model, tasks["prompt"].tolist(), **options).texts
    return tasks[["task", "prompt"]].assign(reply=replies)


def observe_original(study: Study) -> Stage:
    """Capture the original model's activations, fit all vectors, and draw the permuted-label null.

    Writes an observation (see `save_observation`), `activations.safetensors` with the
    outputs by sublayer, `null_angles.csv`: angle by sublayer and draw, and `random_angles.csv`: the 95 % band
    of the angle of two random directions.
    """
    params = study.params

    def compute(folder: Path) -> None:
        sample = draw_sample(study.pool, params.sample_per_dataset, params.seed, 0)
        examined = study.examiner.examine(pandas.concat([sample, study.validation], ignore_index=True), Capture())
        save_observation(folder, examined, study.settings(1, 1).observation)
        outputs = {name: numpy.ascontiguousarray(values) for name, values in examined.activations.outputs.items()}
        save_file(outputs, folder / "activations.safetensors")
        del outputs[FINAL]
        null = permute_labels(study, examined.rows, outputs, params.svm.penalty)
        null.to_csv(folder / "null_angles.csv", index_label="draw")
        chance = {
            name: random_angles(
                values.shape[1], draws=RANDOM_PAIRS, generator=random_generator(params.seed, "random", name)
            )
            for name, values in outputs.items()
        }
        pandas.DataFrame(chance).quantile(BAND).to_csv(folder / "random_angles.csv", index_label="quantile")

    fields = ("seed", "sample_per_dataset", "svm", "null_draws")
    return study.stage("01_orthogonality", compute, fields=fields, version=2)


def permute_labels(
    study: Study, rows: pandas.DataFrame, outputs: dict[str, numpy.ndarray], penalty: float
) -> pandas.DataFrame:
    """Return the angles between vectors of permuted labels, a row per draw and a column per sublayer."""
    params, train = study.params, (rows["split"] == "train").to_numpy()
    labels = benign_labels(rows).to_numpy()[train], answer_labels(rows).to_numpy()[train]
    angles = {
        name: permuted_angles(
            values[train],
            *labels,
            draws=params.null_draws,
            generator=random_generator(params.seed, "null", name),
            penalty=penalty,
        )
        for name, values in outputs.items()
    }
    return pandas.DataFrame(angles)


def compare_solvers(study: Study, observed: Stage) -> Stage:
    """Fit every sublayer's SVMs with both solvers.

    Writes `solvers.csv`: by sublayer and for the final stream, over the two vectors, the largest angle
    between the solvers' solutions and by how much liblinear's objective exceeds the exact one, as a
    share of it; and whether each solver says that it converged.
    """

    def compute(folder: Path) -> None:
        rows = read_labelled_verdicts(study, observed)
        train = (rows["split"] == "train").to_numpy()
        labels = numpy.column_stack([benign_labels(rows), answer_labels(rows)])[train]
        compared = {
            name: solver_difference(features[train], labels, study.params.svm.penalty)
            for name, features in read_activations_of(observed).items()
        }
        table = pandas.DataFrame.from_dict(compared, orient="index")
        table.to_csv(folder / "solvers.csv", index_label="sublayer")

    penalty = study.params.svm.penalty
    return study.stage("02_svm_identification", compute, fields=None, upstream=[observed], version=2, penalty=penalty)


def _read_data(study: Study) -> pandas.DataFrame:
    """Read all that the data hold, also what is measured hours later, and return the candidates."""
    source = study.params.data
    candidates = read_candidates(source)
    require_two_classes(candidates, source)
    require_known_answers(read_tasks(source))
    read_transfer_sets(source, study.params.transfer_size, study.params.seed)
    if missing := [*list_missing_sets(source), *list_missing_tasks(source)]:
        consequence = "not measured, and tables and figures that need them cannot be made"
        print(f"{source}: without {', '.join(missing)}: {consequence}", file=sys.stderr)
    return candidates


def _require_thinking(study: Study, first: pandas.DataFrame) -> None:
    """Raise an `InputError` where a model has tokens to think for, and does not."""
    if study.params.thinking and not first["response"].str.contains(CLOSED_THINKING, regex=False).any():
        raise InputError(f"thinking: {study.params.model} does not think before it answers; leave the budget out")


def _require_sets(study: Study, candidates: pandas.DataFrame) -> None:
    """Raise an `InputError` for a share of errors of a set that is nowhere: it would count for nothing."""
    try:
        study.params.require_sets(candidates["dataset"].unique())
    except ValueError as error:
        raise InputError(f"{study.params.slug}: {error}") from None


def _require_format(verdicts: pandas.DataFrame, judge: str) -> None:
    # The original's replies are sound, so it is the judge that speaks another language.
    if verdicts["raw"].eq(UNFINISHED).mean() > MAX_UNPARSED:
        raise InputError(f"max_new_tokens: most replies {UNFINISHED}, so that there is no answer to judge; raise it")
    strange = verdicts["guard_verdict"].eq("unparsed").mean()
    if strange > MAX_UNPARSED:
        raise InputError(
            f"{judge}: {strange:.0%} of its judgements are not the three lines of Qwen3Guard-Gen; "
            "name a guard model of that format, or `refusals`"
        )


def _tell_unfinished(verdicts: pandas.DataFrame) -> None:
    if count := int(verdicts["raw"].eq(UNFINISHED).sum()):
        fix = "they count as wrong; raise max_new_tokens"
        print(f"{count} of {len(verdicts)} replies {UNFINISHED}: {fix}", file=sys.stderr)


def _require_short(study: Study, prompts: pandas.DataFrame) -> None:
    """Raise an `InputError` where prompts do not fit into the model's context with a reply behind them."""
    config, written = study.chat_model.model.config.get_text_config(), study.params.written
    context = getattr(config, "max_position_embeddings", None)
    lengths = pandas.Series(map(len, encode_chats(study.chat_model.tokenizer, prompts["prompt"].tolist())))
    if context and (long := lengths + written > context).any():
        shortest = prompts["prompt"].str.len().to_numpy()[long].min()
        raise InputError(
            f"{study.params.data}: prompt: {long.sum()} of {len(prompts)} are longer than the model's {context:,} "
            f"tokens less {written:,} for the reply; remove or shorten those of {shortest:,} characters and more"
        )


def read_activations_of(stage: Stage) -> dict[str, numpy.ndarray]:
    """Return the activations that `observe_original` wrote, by sublayer and `final`."""
    return load_file(stage / "activations.safetensors")


def read_verdicts(stage: Stage) -> pandas.DataFrame:
    """Return a stage's verdicts."""
    return pandas.read_csv(stage / "verdicts.csv", keep_default_na=False)


def read_labelled_verdicts(study: Study, stage: Stage) -> pandas.DataFrame:
    """Return a stage's verdicts with the prompts' set and label, in the stage's order."""
    labels = study.pool[["id", "dataset", "label"]]
    return read_verdicts(stage).merge(labels, on="id", how="left", validate="one_to_one")
