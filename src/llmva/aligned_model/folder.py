"""An aligned model and what comes with it, written at once: adapter, log, checkpoint, report, card."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import pandas

from llmva.aligned_model.categories import read_categories
from llmva.aligned_model.choice import Chosen, read_preference
from llmva.aligned_model.earlier import examine_earlier
from llmva.aligned_model.report import write_report
from llmva.core import paths
from llmva.core.errors import InputError
from llmva.core.params import StudyParams
from llmva.core.paths import anchored, user_path
from llmva.core.provenance import digest, file_digest
from llmva.core.runtime_params import RuntimeParams
from llmva.core.store import MANIFEST, Stage, read_manifest, require_writable, run_stage
from llmva.core.vocabulary import ORIGINAL, OUR_LOOP, PAPER_LOOP
from llmva.edits.adapter import export_adapter
from llmva.edits.checkpoint import export_checkpoint
from llmva.edits.edited_model import EditedModel
from llmva.edits.gguf_export import GgufType, export_gguf, require_gguf
from llmva.edits.loading import BASE_KEY, CHANGED, read_earlier
from llmva.edits.log import EditLog
from llmva.method.trade_off import TRADE_OFF
from llmva.models.configuration import read_config
from llmva.models.gguf_files import describe_gguf, split_gguf
from llmva.models.in_memory import differs_from_files
from llmva.models.likelihood import reply_surprise
from llmva.models.packed import require_unpacked
from llmva.models.sources import EDIT_LOG, checkpoint_key, find_base, locate, read_study
from llmva.study.evaluation import read_test_rows
from llmva.study.loop_variants import PAPER_STAGE, probe_layers, read_loop
from llmva.study.study import Study

FOLDER_VERSION = 5
METHODS = (OUR_LOOP, PAPER_LOOP)
# Of a whole edited model as llama.cpp has it, the type of its matrices: as fine as the base's, or one that is named.
GGUF_TYPES = {"gguf": None, "gguf-q8_0": GgufType.Q8_0}
# The base's own format comes first.
FORMATS = ("1", *GGUF_TYPES)


@dataclass(frozen=True)
class AlignOptions:
    """What to align with, and where to.

    Attributes
    ----------
    method : {"LLM-VA-R", "LLM-VA"}
        Ours, which worked on every organism, or the paper's loop, which depends on the model more.
    out : Path
        The folder to make.
    checkpoint : {None, "1", "gguf", "gguf-q8_0"}
        Also write the whole edited model: in the base's own format, or as GGUF.
    prefer : float, optional
        The weight of answered toxic prompts, by which LLM-VA-R's last edit is moved; see
        `llmva.method.trade_off.choose_beta`. Without it the edit stays as it is.
    """

    method: str
    out: Path
    checkpoint: str | None
    prefer: float | None = None

    @classmethod
    def of(cls, namespace: dict) -> Self:
        """Read them from a notebook's `globals()`: `method`, `out`, `checkpoint` and `prefer`, each with a default."""
        method = read_method(namespace.get("method", OUR_LOOP))
        out = user_path(namespace.get("out") or default_folder(namespace))
        checkpoint = namespace.get("checkpoint")
        prefer = read_preference(namespace.get("prefer"), method)
        return cls(method, out, {True: FORMATS[0], False: None}.get(checkpoint, checkpoint), prefer)


def read_method(wanted: str) -> str:
    """Return a method's name as it is written, whatever its case; or raise an `InputError`."""
    method = next((name for name in METHODS if name.lower() == str(wanted).lower()), None)
    if method is None:
        raise InputError(f"method: is {wanted!r}; choose {' or '.join(METHODS)}")
    return method


def default_folder(namespace: dict) -> Path:
    """Return where an aligned model lies when nothing else was said, from a notebook's `globals()`."""
    return Study.of(namespace).folder / "14_align_your_model"


def write_aligned(study: Study, options: AlignOptions, chosen: Chosen, evaluated: dict[str, Stage]) -> Stage:
    """Write what the practitioner takes home.

    Returns
    -------
    Stage
        `options.out` with `adapter/` (where anything was edited), `edit_log.safetensors`, of LLM-VA-R
        `trade_off.safetensors` (see `TradeOff.offsets`), `report.html`, `README.md` (a model card), `manifest.json`,
        and, if asked for, `checkpoint/`.

    Raises
    ------
    InputError
        When `out` is a file, holds something else, or cannot be written; or the checkpoint cannot have its format.
    """
    require_free(options.out, study.params, EDIT_LOG)
    require_checkpoint(study.params.model, options.checkpoint)
    choice, earlier = read_loop(chosen.loop).choice, read_earlier(study.params.model)
    # Of a model that was aligned before: all edits, from its base.
    log = EditLog((*earlier.iterations, *chosen.log.iterations))

    def compute(folder: Path) -> dict:
        log.save(folder / EDIT_LOG, study.log_metadata)
        if log.sublayers:
            export_adapter(study.chat_model, log, folder / "adapter")
        if chosen.log.sublayers and chosen.trade_off:
            chosen.trade_off.save(folder / TRADE_OFF, study.log_metadata)
        if options.checkpoint:
            _export(study, log, folder / "checkpoint", options.checkpoint)
        said = read_test_rows(evaluated)[ORIGINAL]
        facts = {**asdict(choice), "method": options.method, "beta": chosen.beta, "earlier": len(earlier)}
        facts |= _facts(study, log) | {"added": bool(chosen.log.sublayers)}
        facts |= {"drift": measure_drift(study, chosen.log, said)}
        history, before = read_probe_history(study, chosen.loop), examine_earlier(study, chosen.log)
        write_report(folder, study, facts, chosen.loop, history, evaluated, chosen.trials, before)
        return facts

    parameters = {
        "method": options.method,
        "iteration": choice.best_iteration,
        "beta": chosen.beta,
        "checkpoint": options.checkpoint,
        "model": study.log_metadata,
    }
    if (named := read_categories(study.params.data)) is not None:
        # The report counts by kind, and nothing before it asks for kinds.
        parameters["categories"] = digest(named.to_numpy().tolist())
    upstream = (chosen.loop, *evaluated.values())
    return run_stage(options.out, compute, parameters=parameters, upstream=upstream, version=FOLDER_VERSION)


def read_probe_history(study: Study, loop: Stage) -> pandas.DataFrame:
    """Return the validation history of every candidate for L_select: l_select, iteration and the metrics."""
    # The paper's loop goes on with one candidate, chosen before; others run each of theirs to the end.
    paper = loop.folder == study.folder / PAPER_STAGE
    return pandas.read_csv(probe_layers(study) / "probes.csv" if paper else loop / "history.csv")


def require_free(out: Path, params: StudyParams | RuntimeParams, mark: str) -> None:
    """Raise an `InputError` unless the result may be written there: found out now, and not after an hour's work.

    An earlier result of the same kind, which the file `mark` tells, of the same model and the same data is replaced.
    """
    require_writable(out)
    model = anchored(params.model).resolve()
    # Whoever works in the model's folder has the runs in it.
    runs = paths.RUNS.resolve()
    in_runs = runs.is_relative_to(model) and out.resolve().is_relative_to(runs)
    if not in_runs and model in ((place := out.resolve()), *place.parents):
        raise InputError(f"{out}: lies in the model's own folder; name another one")
    manifest = read_manifest(out)
    made_for = read_study(manifest, out)
    ours = made_for.get("model") == params.model and mark in manifest["files"]
    known = {MANIFEST, *manifest["files"]} if ours else set()
    # The folder is replaced as a whole, so nothing else may be in it; a link in it would be lost.
    for path in out.rglob("*"):
        if (path.is_symlink() or not path.is_dir()) and str(path.relative_to(out)) not in known:
            raise InputError(f"{out}: holds other files ({path.relative_to(out)}); name an empty or a new folder")
    if ours and _users_own(made_for.get("data", "")) != _users_own(params.data):
        raise InputError(
            f"{out}: holds the result of other data ({made_for.get('data')}); name another folder, or delete it"
        )


def _users_own(data: str) -> str:
    """Return a study's data as the user has named them; nothing for those that were generated for a study.

    Prompts that were given in memory have no name: it is what they say.
    """
    path = anchored(data)
    if not path.is_relative_to(paths.RUNS):
        return data
    if path.is_file():
        return file_digest(path)
    # Of prompts that are gone nobody knows whether they were these.
    return data if path.suffix else ""


def require_checkpoint(model: str, wanted: str | None) -> None:
    """Raise an `InputError` unless the edited model can be written in the format that is wanted."""
    if wanted and wanted not in FORMATS:
        raise InputError(f"CHECKPOINT: is {wanted!r}; choose {' or '.join(FORMATS)}, or leave it out")
    if wanted in GGUF_TYPES:
        require_gguf(find_base(model), GGUF_TYPES[wanted])
    elif wanted:
        require_unpacked(read_config(*locate(find_base(model))), "CHECKPOINT")


def _export(study: Study, log: EditLog, folder: Path, wanted: str) -> None:
    model = find_base(study.params.model)
    if study.held:
        with EditedModel(study.chat_model.writers) as edited:
            edited.apply(log)
            study.chat_model.model.save_pretrained(folder)
            study.held.chat_model.tokenizer.save_pretrained(folder)
    elif wanted in GGUF_TYPES or split_gguf(model):
        export_gguf(model, log, folder, GGUF_TYPES.get(wanted))
    else:
        export_checkpoint(model, log, folder)


def measure_drift(study: Study, log: EditLog, original: pandas.DataFrame) -> float:
    """Return how much more the edited model is surprised by the original's good replies, in nats per token."""
    original = original.merge(study.test[["id", "prompt"]], on="id", validate="one_to_one")
    kept = original[(original["label"] == "benign") & (original["verdict"] == "answered")]
    if kept.empty:
        return float("nan")
    exchanges = kept["prompt"].tolist(), kept["response"].tolist()
    batch_size = study.params.generation.batch_size
    before = reply_surprise(study.examiner.degeneracy.reference, *exchanges, batch_size=batch_size)
    with EditedModel(study.chat_model.writers) as edited:
        edited.apply(log)
        after = reply_surprise(study.chat_model, *exchanges, batch_size=batch_size)
    return float((after - before).mean())


def _facts(study: Study, log: EditLog) -> dict:
    base = find_base(study.params.model)
    # A model in memory may have been changed since it was loaded.
    changed = differs_from_files(study.held.reference.model, base) if study.held else False
    return {
        "base": base,
        BASE_KEY: checkpoint_key(base) if changed is False else None,
        CHANGED: bool(changed),
        "sublayers": len(study.chat_model.sublayers),
        "edited": sorted(log.sublayers),
        "rank": max((len(log.edits_of(name)) for name in log.sublayers), default=0),
        "study": study.params.model_dump(),
        **describe_gguf(base),
    }
