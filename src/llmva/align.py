"""Align a model of your own: `python -m llmva.align --model FOLDER [--data CSV] [--out FOLDER]`."""

import argparse
import json
import re
import sys
from pathlib import Path

import pandas

from llmva import paths
from llmva.edits import EditedModel
from llmva.errors import InputError, command
from llmva.evaluation import evaluate_loop, evaluate_method
from llmva.generation import reply_surprise
from llmva.loops import LLM_VA_R, align_r, read_loop
from llmva.models import locate
from llmva.organisms.build import write_data_sets
from llmva.params import StudyParams
from llmva.paths import anchored
from llmva.provenance import digest
from llmva.readers import chosen_l_select, read_test_rows
from llmva.report import write_report
from llmva.stages import collect_prompts, probe_layers, run_alignment
from llmva.steering import Original
from llmva.store import Stage, read_manifest, require_writable, run_stage
from llmva.study import Study

VERSION = 1
DEPTH_SHARES = (0.5, 0.75, 1.0)
METHODS = {"llm-va-r": LLM_VA_R.name, "llm-va": "LLM-VA"}
COST = (
    "about 40 to 50 rounds of some 700 replies: two minutes for a tiny model on two cores, "
    "an hour or more for 8 billion parameters on one GPU; a run that is stopped resumes"
)


def align_model(params: StudyParams, out: Path, method: str = LLM_VA_R.name) -> Stage:
    """Run the whole method on a model and write the edited checkpoint, the edit log and a report.

    Parameters
    ----------
    params : StudyParams
        The study; finished parts of an interrupted earlier run are taken up again.
    out : Path
        Becomes a folder with `checkpoint/`, `edit_log.safetensors`, `report.md` and `manifest.json`, all at once.
    method : {"LLM-VA-R", "LLM-VA"}
        Ours, which worked on every organism, or the paper's loop, which depends on the model more.

    Raises
    ------
    InputError
        When `out` is a file, holds something else, or cannot be written.
    """
    _require_free(out, params)
    study = Study(params)
    collect_prompts(study)
    if method == LLM_VA_R.name:
        loop = align_r(study)
    else:
        loop = run_alignment(study, chosen_l_select(probe_layers(study))["l_select"])
    log, chosen, _ = read_loop(loop)
    original, aligned = evaluate_method(study, Original()), evaluate_loop(study, method, loop)

    def compute(place: Path) -> dict:
        best = log.at_iteration(chosen["best_iteration"])
        rows = read_test_rows({"Original": original, method: aligned})
        best.save(place / "edit_log.safetensors", {"model": params.model})
        with EditedModel(study.chat_model.writers) as edited:
            edited.apply(best)
            drift = measure_drift(study, rows["Original"])
            study.chat_model.model.save_pretrained(place / "checkpoint")
            study.chat_model.tokenizer.save_pretrained(place / "checkpoint")
        facts = {
            **chosen,
            "method": method,
            "sublayers": len(study.chat_model.sublayers),
            "drift": drift,
            "edited": sorted(best.sublayers),
        }
        write_report(place / "report.md", params, rows, facts)
        return facts

    parameters = {"method": method, "iteration": chosen["best_iteration"]}
    return run_stage(out, compute, parameters=parameters, upstream=(original, aligned), version=VERSION)


def measure_drift(study: Study, original: pandas.DataFrame) -> float:
    """Return how much more the edited model is surprised by the original's good replies, in nats per token."""
    original = original.merge(study.test[["id", "prompt"]], on="id", validate="one_to_one")
    kept = original[(original["label"] == "benign") & (original["verdict"] == "answered")]
    if kept.empty:
        return float("nan")
    exchanges = kept["prompt"].tolist(), kept["response"].tolist()
    models = (study.chat_model, study.examiner.degeneracy.reference)
    edited, before = (
        reply_surprise(model, *exchanges, batch_size=study.params.generation.batch_size) for model in models
    )
    return float((edited - before).mean())


def build_params(options: argparse.Namespace) -> StudyParams:
    """Return the parameters of a model that has no parameter file of its own."""
    model = str(Path(options.model).absolute()) if Path(options.model).is_dir() else options.model
    location, _ = locate(model)
    config = _read_config(location) if isinstance(location, Path) else {}
    # Two folders of one name are two studies: the digest keeps their runs apart.
    slug = f"align-{re.sub('[^A-Za-z0-9]+', '-', Path(model).name)[:40]}-{digest([model, options.data])[:8]}"
    candidates = _l_select_candidates(2 * config.get("num_hidden_layers", 32))
    values = {
        "slug": slug,
        "model": model,
        "judge": options.judge,
        "data": str(Path(options.data).absolute()) if options.data else str(_generated_data(slug, options.seed)),
        "seed": options.seed,
        "threads": options.threads,
        "dtype": options.dtype or config.get("dtype") or config.get("torch_dtype") or "float32",
        "generation": {"batch_size": options.batch_size, "max_new_tokens": options.max_new_tokens},
        "candidates": options.candidates,
        "pool_size": min(500, options.candidates),
        "error_share": {
            "seval_attack": 0.8,
            "seval_risk": 0.3,
            "orfuzzset": 0.7,
            "nq": 0.1,
            "benign": 0.5,
            "toxic": 0.5,
        },
        "transfer_size": 100,
        "sample_per_dataset": 128,
        "svm": {"solver": "newton", "penalty": 1.0},
        "selection": "strict",
        "iterations": options.iterations,
        "probe": {"l_select": candidates, "iterations": min(10, options.iterations)},
        "ridge": {"neutral_weight": 1.0, "damping": 1e-3, "iterations": min(12, options.iterations)},
        "ablations": {"iterations": options.iterations, "degrees": [0, 30, 60, 90], "draws": 1, "l_select": candidates},
        "null_draws": 50,
    }
    return StudyParams.checked(values, "align")


@command
def main(arguments: list[str] | None = None) -> None:
    """Align the model named on the command line."""
    options = _parser().parse_args(arguments)
    if not options.model:
        raise InputError("MODEL: not given; write `make align MODEL=<folder> [DATA=<csv>] [OUT=<folder>]`")
    params = build_params(options)
    out = Path(options.out or paths.RUNS / params.slug / "aligned").absolute()
    print(f"aligning {params.model}: {COST}", file=sys.stderr)
    align_model(params, out, METHODS[options.method])
    print((out / "report.md").read_text(encoding="utf-8"))
    print(f"written to {out}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m llmva.align", description=__doc__)
    parser.add_argument("--model", help="a checkpoint folder with a chat template, or <hub id>@<revision>")
    parser.add_argument(
        "--data", help="CSV or JSONL with prompt and label (benign or toxic); default: generated prompts"
    )
    parser.add_argument("--out", help="folder to make; default: runs/<name>/aligned")
    parser.add_argument("--method", choices=list(METHODS), default="llm-va-r", help="ours (default), or the paper's")
    parser.add_argument("--judge", default="phrases", help="`phrases`, or a guard model in Qwen3Guard-Gen's format")
    parser.add_argument("--dtype", help="of the weights; default: the checkpoint's own")
    for name, default in (("seed", 0), ("threads", 2), ("batch-size", 64), ("max-new-tokens", 128)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--candidates", type=int, default=1500, help="prompts per set that the model answers first")
    parser.add_argument("--iterations", type=int, default=30, help="T of the loop; of LLM-VA-R at most 12")
    return parser


def _require_free(out: Path, params: StudyParams) -> None:
    # Found out now, and not after an hour's work.
    require_writable(out)
    manifest = read_manifest(out)
    own = manifest is not None and "best_iteration" in manifest["facts"]
    if out.is_dir() and any(out.iterdir()) and not own:
        raise InputError(f"{out}: holds other files; name an empty or a new folder")
    if anchored(params.model) in (out, *out.parents):
        raise InputError(f"{out}: lies in the model's own folder; name another one")


def _generated_data(slug: str, seed: int) -> Path:
    folder = paths.RUNS / slug / "data"
    return run_stage(folder, lambda place: write_data_sets(place, seed), parameters={"seed": seed}).folder


def _read_config(folder: Path) -> dict:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise InputError(f"{folder}/config.json: missing or not readable as JSON; restore it") from None
    return {**config, **config.get("text_config", {})}


def _l_select_candidates(sublayers: int) -> list[int]:
    return sorted({max(1, round(share * sublayers)) for share in DEPTH_SHARES})


if __name__ == "__main__":
    main()
