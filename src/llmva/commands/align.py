"""Align a model of your own: `llmva align --model FOLDER [--data CSV] [--out FOLDER]`."""

import argparse
import sys
from pathlib import Path

from llmva.aligned_model.choice import read_preference
from llmva.aligned_model.folder import EDIT_LOG, FORMATS, METHODS, require_checkpoint, require_free
from llmva.aligned_model.params import build_params
from llmva.commands.notebooks import find_notebook, run_notebook
from llmva.core.errors import InputError, OneLineParser, command
from llmva.core.params import SOFT_PENALTY, StudyParams
from llmva.core.paths import user_path
from llmva.core.store import locked, require_writable
from llmva.models.sources import absolute_source, find_base
from llmva.prompts.sets import read_candidates, require_two_classes

NOTEBOOK = "14"
SLUGS = {name.lower(): name for name in METHODS}
COST = (
    "about 40 to 50 rounds of some 700 replies: three minutes for a tiny model on two cores, "
    "an hour or more for 8 billion parameters on one GPU; a run that is stopped resumes"
)


def align_model(
    params: StudyParams, out: Path, method: str, checkpoint: str | None, prefer: float | None = None
) -> Path:
    """Run the alignment's notebook on a model and return its executed copy; see `AlignOptions`.

    Finished parts of an interrupted earlier run are taken up again.

    Raises
    ------
    InputError
        When the prompts cannot be used, or `out` or the checkpoint cannot be written: found out before the model is
        loaded.
    """
    require_free(out, params, EDIT_LOG)
    require_checkpoint(params.model, checkpoint)
    require_two_classes(read_candidates(params.data), params.data)
    source = find_notebook(NOTEBOOK)
    target = params.run_folder / "executed" / f"{source.stem}_{method.lower()}.ipynb"
    require_writable(params.run_folder)
    params.run_folder.mkdir(parents=True, exist_ok=True)
    # Runs with other numbers of iterations share this folder, and would replace each other's stages.
    with locked(params.run_folder / method.lower()):
        more = {"method": method, "out": str(out), "checkpoint": checkpoint, "prefer": prefer}
        run_notebook(source, target, {**params.values, **more})
    return target


@command
def main(arguments: list[str] | None = None) -> None:
    """Align the model named on the command line."""
    options = make_parser().parse_args(arguments)
    options.model = _read_model(options)
    prefer = read_preference(options.prefer, SLUGS[options.method])
    params = build_params(options)
    name = "aligned" if options.method == "llm-va-r" else f"aligned-{options.method}"
    out = user_path(options.out or params.run_folder / name)
    print(f"aligning {params.model}: {COST}", file=sys.stderr)
    executed = align_model(params, out, SLUGS[options.method], options.checkpoint, prefer)
    print((out / "README.md").read_text(encoding="utf-8").split("## Use")[0].split("---\n", 2)[2].strip())
    print(f"\nwritten to {out}; begin with {out / 'report.html'} (how it was made: {executed})")


def _read_model(options: argparse.Namespace) -> str:
    """Return the model to align: of `--from` the folder of one that was aligned before."""
    if options.earlier and options.model:
        raise InputError("FROM: names the model that MODEL names too; leave one of them out")
    if options.earlier and find_base(absolute_source(options.earlier)) == absolute_source(options.earlier):
        raise InputError(f"FROM: {options.earlier}: not a folder that `make align` made; name its OUT")
    if not (options.earlier or options.model):
        raise InputError("MODEL: not given; write `make align MODEL=<folder> [DATA=<csv>] [OUT=<folder>]`")
    return options.earlier or options.model


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's options, with their defaults."""
    parser = OneLineParser(prog="python -m llmva align", description=__doc__)
    parser.add_argument("--model", help="a checkpoint folder with a chat template, a GGUF file, or <hub id>@<revision>")
    parser.add_argument(
        "--from",
        dest="earlier",
        metavar="FOLDER",
        help="instead of a model: the folder of one that was aligned before, to go on from its edits with new prompts",
    )
    parser.add_argument(
        "--data", help="CSV, JSON, JSONL or Parquet with prompt and label (benign or toxic); default: generated prompts"
    )
    parser.add_argument("--out", help="folder to make; default: runs/<name>/aligned, or aligned-llm-va")
    parser.add_argument(
        "--method",
        type=str.lower,
        choices=list(SLUGS),
        default="llm-va-r",
        help="ours (default), or the paper's; in capitals or not",
    )
    parser.add_argument(
        "--checkpoint",
        type=str.lower,
        nargs="?",
        choices=FORMATS,
        const=FORMATS[0],
        help="also write the whole edited model: 1, in the base's own format (also without a value); gguf, one file "
        "for llama.cpp; or gguf-q8_0, with matrices of 8 bits",
    )
    parser.add_argument(
        "--prefer",
        help="safe, balanced, helpful, or the weight of answered toxic prompts from 0 to 1: by it LLM-VA-R's last edit "
        "is moved along the trade-off; default: it stays as the loop made it",
    )
    parser.add_argument(
        "--judge",
        default="refusals",
        help="a guard model in Qwen3Guard-Gen's format; or `refusals` (default), which looks for what declines in a "
        "reply's first sentences, or `phrases`, one of which it must begin with",
    )
    parser.add_argument(
        "--mapping", choices=["outcome", "refusal"], default="outcome", help="what a guard's lines mean (see README)"
    )
    parser.add_argument(
        "--penalty", type=float, default=SOFT_PENALTY, help="C of LLM-VA-R's SVMs; on smol 1 did better"
    )
    parser.add_argument("--dtype", help="of the weights; default: the checkpoint's own")
    for name, default in (("seed", 0), ("threads", 2), ("batch-size", 64), ("max-new-tokens", 128)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument(
        "--thinking",
        type=int,
        metavar="TOKENS",
        help="of a thinking model: for how many tokens it may think before it answers; activations are then read "
        "behind the thinking (default: before it)",
    )
    parser.add_argument("--candidates", type=int, default=1500, help="prompts per set that the model answers first")
    parser.add_argument("--iterations", type=int, default=30, help="T of the loop; of LLM-VA-R at most 12")
    return parser


if __name__ == "__main__":
    main()
