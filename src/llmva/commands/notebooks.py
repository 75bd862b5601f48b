"""Run numbered notebooks for one model: `llmva notebooks 04 05 --model tiny-llama`."""

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import nbformat
import papermill
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from papermill.exceptions import PapermillExecutionError

from llmva.commands.kernels import AsyncLocalKernel, forget, warm_kernel
from llmva.core import paths
from llmva.core.errors import InputError, OneLineParser, command
from llmva.core.params import SEED_SUFFIX, load_params
from llmva.core.runtime_params import known_runtime_slugs, load_runtime_params
from llmva.core.store import MANIFEST, locked, require_writable
from llmva.core.strict import StrictModel
from llmva.core.yaml_files import read_yaml

KERNEL_DIED = "its kernel was killed, most likely for want of memory; run it again, and it goes on where it was"


def execute_notebooks(names: Sequence[str], slug: str) -> list[Path]:
    """Execute notebooks one after the other with a model's parameters and return the executed copies' paths.

    They share a kernel, which is emptied after each. The parameters are checked first, since papermill only warns of
    one it does not know. The copies are kept under `runs/<slug>/executed/`, also when one fails, for reading.
    """
    sources, params = [find_notebook(name) for name in names], load_any_params(slug)
    targets = [params.run_folder / "executed" / source.name for source in sources]
    with warm_kernel() as kernel:
        for source, target in zip(sources, targets, strict=True):
            print(f"{slug}: {source.stem}", file=sys.stderr)
            run_notebook(source, target, params.values, kernel)
            forget(kernel)
            manifest = params.run_folder / source.stem / MANIFEST
            if manifest.is_file():
                # A cache hit leaves the manifest alone, but Make goes by times.
                os.utime(manifest)
            (params.run_folder / "due" / source.stem).unlink(missing_ok=True)
    return targets


def load_any_params(slug: str) -> StrictModel:
    """Return the parameters of a study, or of a study of run-time steering, by its slug."""
    steered = SEED_SUFFIX.sub("", slug) in known_runtime_slugs()
    return load_runtime_params(slug) if steered else load_params(slug)


def execute_due(listed: Path, slug: str) -> None:
    """Execute the notebooks that Make has listed in a file, unless another process has taken the list.

    That one's end is waited for. The list is renamed when all of them are done.

    Raises
    ------
    InputError
        When a notebook has failed before, or there never was such a list.
    """
    # Slugs such as llama-3.1-8b have dots, so that these are no suffixes of theirs.
    taken, done = (listed.with_name(f"{listed.name}.{state}") for state in ("taken", "done"))
    if not any(place.is_file() for place in (listed, taken, done)):
        raise InputError(f"{listed}: no such list of notebooks; name one, or the notebooks themselves")
    with locked(listed):
        if taken.is_file():
            raise InputError(f"{slug}: a notebook failed before; see above")
        if not listed.is_file():
            return
        listed.rename(taken)
        execute_notebooks(list(dict.fromkeys(taken.read_text().split())), slug)
        taken.replace(done)


def run_notebook(source: Path, target: Path, parameters: dict, kernel: AsyncLocalKernel | None = None) -> None:
    """Execute a copy of a notebook with these parameters; a failure becomes one line, and the copy is kept.

    Without a kernel it gets one of its own.
    """
    options = {"cwd": source.parent, "stderr_file": sys.stderr, "km": kernel, "kernel_manager_class": AsyncLocalKernel}
    with _failures_in_a_line(f"{source.name} for {parameters['slug']}", f" (read {target})"):
        _use_papermill(source, target, parameters, **options)


@contextmanager
def _failures_in_a_line(name: str, fix: str) -> Iterator[None]:
    try:
        yield
    except (PapermillExecutionError, CellExecutionError) as error:
        cause = f"{error.ename}: {error.evalue}".splitlines()[0]
        raise InputError(f"{name}: {cause}{fix}") from None
    except DeadKernelError:
        raise InputError(f"{name}: {KERNEL_DIED}") from None
    except RuntimeError as error:
        if "Kernel died" not in str(error):
            raise
        fix = f"see what `{sys.executable} -m ipykernel --version` says"
        raise InputError(f"{name}: its kernel did not start; {fix}") from None


def prepare_notebook(name: str, params: StrictModel, **more: object) -> Path:
    """Write a copy of a notebook with a model's parameters, and others, to be stepped through by hand."""
    source = find_notebook(name)
    target = params.run_folder / "step" / source.name
    _use_papermill(source, target, {**params.values, **more}, prepare_only=True)
    return target


def refresh_notebooks(names: Sequence[str]) -> None:
    """Execute tracked notebooks in place, each with the parameters in its own cell, in one kernel."""
    sources = [find_notebook(name) for name in names]
    with warm_kernel() as kernel:
        for path in sources:
            print(path.stem, file=sys.stderr)
            refresh_notebook(path, kernel)
            forget(kernel)


def refresh_notebook(path: Path, kernel: AsyncLocalKernel | None = None) -> None:
    """Execute a notebook in place, with the parameters in its own cell, and keep outputs and counts."""
    notebook = nbformat.read(path, as_version=4)
    options = {"km": kernel, "kernel_name": "python3", "kernel_manager_class": AsyncLocalKernel}
    with _failures_in_a_line(path.name, "; it is left as it was"):
        NotebookClient(notebook, timeout=None, resources={"metadata": {"path": path.parent}}, **options).execute()
    for cell in notebook.cells:
        # Times of execution would make every run a change.
        cell.metadata.pop("execution", None)
    notebook.metadata.pop("language_info", None)
    paths.write_atomically(path, nbformat.writes(notebook) + "\n")


def prepare_copies(parameters: Path, folder: Path) -> list[Path]:
    """Write copies of all notebooks into a folder, with the parameters that a YAML file changes, for a quick check.

    A notebook whose name is a key of the file's `notebooks` has parameters of its own, or none.
    """
    changes = read_yaml(parameters)
    require_writable(folder)
    others, copies = changes.pop("notebooks"), []
    for source in sorted(paths.NOTEBOOKS.glob("*.ipynb")):
        target = folder / source.name
        _use_papermill(source, target, others.get(source.stem, changes), prepare_only=True)
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
    # The parameters were checked; papermill would warn of those that a notebook has no default for. What goes wrong is
    # told in a line of ours.
    logging.getLogger("papermill").setLevel(logging.CRITICAL)
    target.parent.mkdir(parents=True, exist_ok=True)
    papermill.execute_notebook(source, target, parameters=parameters, progress_bar=False, **options)


@command
def main(arguments: list[str] | None = None) -> None:
    """Execute notebooks, or only prepare them."""
    parser = OneLineParser(prog="python -m llmva notebooks", description=__doc__)
    parser.add_argument("notebooks", nargs="*", help="notebooks' names or the beginnings of them, such as 05")
    parser.add_argument("--model", default="tiny-llama", help="the name of a file in papermill_params/")
    parser.add_argument("--due", type=Path, metavar="FILE", help="run the notebooks listed in a file, as Make does")
    parser.add_argument("--prepare-only", action="store_true", help="write the copies without running them")
    parser.add_argument("--in-place", action="store_true", help="run the tracked notebooks on their own parameters")
    parser.add_argument(
        "--copies", nargs=2, type=Path, metavar=("YAML", "FOLDER"), help="write copies of all, with changed parameters"
    )
    options = parser.parse_args(arguments)
    if options.copies:
        print(f"{len(prepare_copies(*options.copies))} notebooks in {options.copies[1]}")
    elif options.due:
        execute_due(options.due, options.model)
    elif not options.notebooks:
        parser.error("name a notebook, such as 05")
    elif options.in_place:
        refresh_notebooks(options.notebooks)
    elif options.prepare_only:
        for name in options.notebooks:
            print(f"{sys.executable} -m jupyter lab {prepare_notebook(name, load_any_params(options.model))}")
    else:
        execute_notebooks(options.notebooks, options.model)


if __name__ == "__main__":
    main()
