"""Find a direction that brings a trait back: `llmva steer --model FOLDER --pairs CSV`."""

import re
import sys
from pathlib import Path

from llmva.aligned_model.folder import require_free
from llmva.aligned_model.steer import assemble_params
from llmva.aligned_model.steering import DIRECTION, require_method, write_steering
from llmva.core.errors import InputError, OneLineParser, command
from llmva.core.paths import user_path
from llmva.core.provenance import digest
from llmva.core.runtime_params import RuntimeParams
from llmva.models.sources import absolute_source, locate, split_source
from llmva.prompts.threats import PAIR_COLUMNS, Threat, read_threats
from llmva.steering.runtime.updates import ALPHAS
from llmva.study.runtime import RuntimeStudy
from llmva.study.runtime.sweep import list_cells


@command
def main(arguments: list[str] | None = None) -> None:
    """Fit, sweep, choose and test, and print what was found."""
    options = make_parser().parse_args(arguments)
    for name in ("model", "pairs"):
        if not getattr(options, name):
            raise InputError(f"{name.upper()}: not given; write `make steer MODEL=<folder> PAIRS=<csv> [METHOD=StMP]`")
    method = require_method(options.method)
    study = RuntimeStudy(build_params(options))
    out = user_path(options.out or study.params.run_folder / f"steering-{method.lower()}")
    require_free(out, study.params, DIRECTION)
    # Found out now, and not after the model has loaded.
    if Path(study.params.data).is_dir():
        raise InputError(f"{study.params.data}: is a folder; name a CSV with columns {', '.join(PAIR_COLUMNS)}")
    (threat,) = read_threats(study.params.data).values()
    locate(study.params.model)
    study.require_fit()
    print(f"steering {study.params.model}: {count_steerings(study, threat)}; a run that is stopped resumes",
          file=sys.stderr)  # fmt: skip
    write_steering(study, out, method)
    print((out / "README.md").read_text(encoding="utf-8").split("## Use")[0].split("---\n", 2)[2].strip())
    print(f"\nwritten to {out}; begin with {out / 'report.html'}")


def build_params(options) -> RuntimeParams:
    """Return the parameters of a study of pairs of system prompts."""
    model = absolute_source(options.model)
    pairs = str(user_path(options.pairs))
    method = require_method(options.method)
    alphas = list(ALPHAS[method]) if options.alphas is None else _read_numbers("alphas", options.alphas, float)
    layers = "all" if options.layers is None else _read_numbers("layers", options.layers, int)
    name = re.sub("[^A-Za-z0-9]+", "-", Path(split_source(model)[0]).name)[:40]
    told = digest([model, pairs, options.seed, options.dtype, options.layers, {method: alphas}])
    return assemble_params(
        slug=f"steer-{name}-{told[:8]}", model=model, data=pairs, method=method, alphas=alphas, layers=layers,
        seed=options.seed, threads=options.threads, dtype=options.dtype, batch_size=options.batch_size,
        max_new_tokens=options.max_new_tokens,
    )  # fmt: skip


def count_steerings(study: RuntimeStudy, threat: Threat) -> str:
    """Return what the search will cost, in words: steerings, each of which answers the validation prompts."""
    cells, prompts = len(list(list_cells(study))), len(threat.of_split("validation"))
    return f"{cells} steerings, controls included, answer {prompts} validation prompts each"


def make_parser() -> OneLineParser:
    """Return the parser of the command's options, with their defaults."""
    parser = OneLineParser(prog="python -m llmva steer", description=__doc__)
    parser.add_argument("--model", help="a checkpoint folder with a chat template, a GGUF file, or <hub id>@<revision>")
    parser.add_argument("--pairs", help="CSV with prompt, aligned and malicious (system prompts)")
    parser.add_argument("--method", default="StMP", help="SwFC, StTP or StMP (default)")
    parser.add_argument("--out", help="folder to make; default: runs/<name>/steering-<method>")
    parser.add_argument("--alphas", help="strengths of the method, such as 1,2,4; default: the published ones")
    parser.add_argument("--layers", help="layers to try, such as 10,12,14; default: all")
    parser.add_argument("--dtype", default="float32", help="of the weights")
    for name, default in (("seed", 0), ("threads", 2), ("batch-size", 64), ("max-new-tokens", 128)):
        parser.add_argument(f"--{name}", type=int, default=default)
    return parser


def _read_numbers(name: str, text: str, kind: type) -> list[float]:
    try:
        numbers = [kind(word) for word in text.replace(",", " ").split()]
    except ValueError:
        numbers = []
    if not numbers or len(set(numbers)) < len(numbers) or not all(0 <= number < 1000 for number in numbers):
        whole = "whole " * (kind is int)
        raise InputError(f"{name}: is {text!r}; write different {whole}numbers below 1000, such as '1 2 4'")
    return numbers


if __name__ == "__main__":
    main()
