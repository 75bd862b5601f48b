"""Run a numbered notebook for one model: `python -m llmva.commands.notebooks 05_main_results tiny-llama`."""

import logging
import os
import sys
from pathlib import Path

import nbformat
import papermill
import yaml
from nbclient import NotebookClient
from papermill.exceptions import PapermillExecutionError

from llmva.commands.kernels import AsyncLocalKernel
from llmva.core import paths
from llmva.core.errors import InputError, OneLineParser, command
from llmva.core.params import StudyParams, load_params
from llmva.core.store import MANIFEST


def execute_notebook(name: str, slug: str) -> Path:
    """Execute a notebook with a model's parameters and return the executed copy's path.

    The parameters are checked first, since papermill only warns of one it does not know. The
    copy is kept under `runs/<slug>/executed/`, also when it fails, for reading.
    """
    source = find_notebook(name)
    params = load_params(slug)
    print(f"{slug}: {source.stem}", file=sys.stderr)
    target = params.run_folder / "executed" / source.name
    run_notebook(source, target, params.model_dump())
    manifest = params.run_folder / source.stem / MANIFEST
    if manifest.is_file():
        # A cache hit leaves the manifest alone, but Make goes by times.
        os.utime(manifest)
    return target


def run_notebook(source: Path, target: Path, parameters: dict) -> None:
    """Execute a copy of a notebook with these parameters; a failure becomes one line, and the copy is kept."""
    options = {"cwd": source.parent, "stderr_file": sys.stderr, "kernel_manager_class": AsyncLocalKernel}
    try:
        _use_papermill(source, target, parameters, **options)
    except PapermillExecutionError as error:
        cause = f"{error.ename}: {error.evalue}".splitlines()[0]
        raise InputError(f"{source.name} for {parameters['slug']}: {cause} (read {target})") from None


def prepare_notebook(name: str, params: StudyParams, **more: object) -> Path:
    """Write a copy of a notebook with a model's parameters, and others, to be stepped through by hand."""
    source = find_notebook(name)
    target = params.run_folder / "step" / source.name
    _use_papermill(source, target, {**params.model_dump(), **more}, prepare_only=True)
    return target


def refresh_notebook(path: Path) -> None:
    """Execute a tracked notebook in place, with the parameters in its own cell, and keep outputs and counts."""
    notebook = nbformat.read(path, as_version=4)
    options = {"kernel_name": "python3", "kernel_manager_class": AsyncLocalKernel}
    NotebookClient(notebook, timeout=None, resources={"metadata": {"path": path.parent}}, **options).execute()
    for cell in notebook.cells:
        # Times of execution would make every run a change.
        cell.metadata.pop("execution", None)
    notebook.metadata.pop("language_info", None)
    paths.write_atomically(path, nbformat.writes(notebook) + "\n")


def prepare_copies(parameters: Path, folder: Path) -> list[Path]:
    """Write copies of all notebooks into a folder, with the parameters that a YAML file changes, for a quick check."""
    changes = yaml.safe_load(parameters.read_text(encoding="utf-8"))
    copies = []
    for source in sorted(paths.NOTEBOOKS.glob("*.ipynb")):
        target = folder / source.name
        # The last notebook reads results of all models and has none of these parameters.
        chosen = {} if source.stem.startswith("2") else changes
        _use_papermill(source, target, chosen, prepare_only=True)
        copies.append(target)
    return copies


def find_notebook(name: str) -> Path:
    """Return the notebook whose name begins so: `05` is enough."""
    notebooks = sorted(paths.NOTEBOOKS.glob("*.ipynb"))
    named = [path for path in notebooks if path.name.startswith(name)]
    if len(named) != 1:
        known = ", ".join(path.stem for path in notebooks)
        raise InputError(f"{name}: names {len(named)} notebooks; known are {known}")
    return named[0]


def _use_papermill(source: Path, target: Path, parameters: dict, **options: object) -> None:
    # The parameters were checked; papermill would warn of those that a notebook has no default for.
    logging.getLogger("papermill").setLevel(logging.ERROR)
    target.parent.mkdir(parents=True, exist_ok=True)
    papermill.execute_notebook(source, target, parameters=parameters, progress_bar=False, **options)


@command
def main(arguments: list[str] | None = None) -> None:
    """Execute a notebook, or only prepare it."""
    parser = OneLineParser(prog="python -m llmva.commands.notebooks", description=__doc__)
    parser.add_argument("notebook", help="a notebook's name or the beginning of it, such as 05")
    parser.add_argument(
        "slug", nargs="?", default="tiny-llama", help="a model: the name of a file in papermill_params/"
    )
    parser.add_argument("--prepare-only", action="store_true", help="write the copy without running it")
    parser.add_argument("--reduced", type=Path, metavar="YAML", help="with --copies: parameters to change, for a check")
    parser.add_argument("--copies", type=Path, metavar="FOLDER", help="write copies of all notebooks there")
    parser.add_argument(
        "--in-place", action="store_true", help="run the tracked notebook itself, on its own parameters"
    )
    options = parser.parse_args(arguments)
    if options.reduced and options.copies:
        print(f"{len(prepare_copies(options.reduced, options.copies))} notebooks in {options.copies}")
    elif options.prepare_only:
        print(f"{sys.executable} -m jupyter lab {prepare_notebook(options.notebook, load_params(options.slug))}")
    elif options.in_place:
        refresh_notebook(find_notebook(options.notebook))
    else:
        execute_notebook(options.notebook, options.slug)


if __name__ == "__main__":
    main()
