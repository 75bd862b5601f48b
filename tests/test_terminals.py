"""What a run leaves on a terminal and in a log: few lines, no carriage returns, nothing of a kernel's own."""

import gc
import json
import os
import pty
import subprocess
import sys
import termios

import nbformat
import psutil
import pytest
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.provisioning import LocalProvisioner
from local_kernels import LocalKernel

from llmva.commands import notebooks
from llmva.commands.kernels import LocalSockets
from llmva.commands.notebooks import refresh_notebook, run_notebook
from llmva.core import paths, progress
from llmva.core.errors import InputError
from llmva.core.params import load_params
from llmva.core.paths import ROOT

# A clock that each step moves by a second, and a bar that draws every step.
BAR = """
from types import SimpleNamespace
from tqdm import tqdm
from llmva.core import progress
clock = [0.0]
progress.time = SimpleNamespace(monotonic=lambda: clock[0])
def walk(bar):
    for _ in bar:
        clock[0] += 1
"""
OURS = BAR + "walk(progress.progress_bar('steps', range(100), mininterval=0, miniters=1))"
NESTED = BAR + "[walk(progress.progress_bar('inner', range(40))) for _ in progress.progress_bar('outer', range(3))]"
LIBRARY = BAR + "with progress.library_bars():\n    walk(tqdm(range(100), desc='steps', mininterval=0, miniters=1))"
LOCAL = "import json, ipykernel\nassert json.loads(ipykernel.get_connection_info())['transport'] == 'ipc'"


def environment(**more) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "TQDM_DISABLE"}
    return {**kept, "PYTHONPATH": str(ROOT / "src"), **more}


def through_a_pipe(script: str, **more) -> str:
    command = [sys.executable, "-c", script]
    return subprocess.run(command, env=environment(**more), stderr=subprocess.PIPE, check=True).stderr.decode()


def on_a_terminal(script: str, **more) -> str:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    child = subprocess.Popen([sys.executable, "-c", script], env=environment(**more), stderr=theirs)
    os.close(theirs)
    seen = b""
    try:
        while part := os.read(ours, 4096):
            seen += part
    except OSError:
        # The other end was closed.
        pass
    os.close(ours)
    assert child.wait() == 0
    return seen.decode()


# Progress


@pytest.mark.parametrize("script", [OURS, LIBRARY])
def test_a_log_has_a_line_of_a_bar_every_thirty_seconds(script):
    lines = through_a_pipe(script).splitlines(keepends=True)
    assert [line.split("|")[0] for line in lines] == ["steps:  30%", "steps:  60%", "steps:  90%"]
    assert all(line.endswith("\n") and "\r" not in line for line in lines)


def test_bars_within_a_bar_leave_no_blank_lines():
    written = through_a_pipe(NESTED)
    assert "\r" not in written and "\x1b" not in written
    assert all(line.strip() for line in written.splitlines())


@pytest.mark.parametrize("script", [OURS, LIBRARY])
def test_a_terminal_has_a_bar_that_is_drawn_anew(script):
    assert on_a_terminal(script).count("\r") > 90


@pytest.mark.parametrize("show", [through_a_pipe, on_a_terminal])
def test_the_environment_silences_bars_everywhere(show):
    assert show(OURS, TQDM_DISABLE="1") == show(LIBRARY, TQDM_DISABLE="1") == ""


def test_what_belongs_to_no_bar_is_passed_on(capsys):
    stream = progress.LogStream(sys.stderr)
    print("a warning", file=stream)
    print("two", "words", file=stream)
    stream.flush()
    assert capsys.readouterr().err == "a warning\ntwo words\n"


# Kernels


@pytest.fixture
def notebook(tmp_path):
    """Return a function that writes a notebook of a parameter and one more cell."""

    def write(source: str, name: str = "two_cells"):
        cells = [nbformat.v4.new_code_cell("slug = 'none'"), nbformat.v4.new_code_cell(source)]
        cells[0].metadata["tags"] = ["parameters"]
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        path = tmp_path / f"{name}.ipynb"
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
        return path

    return write


@pytest.fixture(autouse=True)
def no_kernel_is_left():
    yield
    assert not [
        child for child in psutil.Process().children(recursive=True) if "ipykernel" in " ".join(child.cmdline())
    ]


def test_a_notebook_s_run_shows_what_its_cells_write_and_nothing_of_the_kernel_s(notebook, tmp_path, capfd):
    source = notebook(f"{LOCAL}\nimport sys\nprint(slug, file=sys.stderr)")
    run_notebook(source, tmp_path / "executed.ipynb", {"slug": "toy"})
    assert capfd.readouterr() == ("", "toy\n")


def test_a_bar_in_a_notebook_s_run_keeps_to_the_same_rule(notebook, tmp_path, capfd, monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE")
    run_notebook(notebook(OURS), tmp_path / "executed.ipynb", {"slug": "toy"})
    written = capfd.readouterr().err
    assert len(written.splitlines()) == 3 and "\r" not in written


def test_an_error_in_a_cell_is_one_line(notebook, tmp_path, capfd):
    with pytest.raises(InputError) as raised:
        run_notebook(notebook("raise ValueError('odd\\nand more')"), tmp_path / "executed.ipynb", {"slug": "toy"})
    assert str(raised.value) == f"two_cells.ipynb for toy: ValueError: odd (read {tmp_path / 'executed.ipynb'})"
    assert "IPKernelApp" not in capfd.readouterr().err


def test_a_killed_kernel_is_one_line(notebook, tmp_path):
    kill = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"
    with pytest.raises(InputError, match="two_cells.ipynb for toy: its kernel was killed"):
        run_notebook(notebook(kill), tmp_path / "executed.ipynb", {"slug": "toy"})


def test_a_kernel_is_this_python_whatever_is_installed_under_its_name(notebook, tmp_path, monkeypatch):
    folder = tmp_path / "jupyter" / "kernels" / "python3"
    folder.mkdir(parents=True)
    spec = {"argv": ["/bin/false", "{connection_file}"], "display_name": "Python 3", "language": "python"}
    (folder / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "0")
    source = notebook(f"import sys\nassert sys.executable == {sys.executable!r}")
    run_notebook(source, tmp_path / "executed.ipynb", {"slug": "toy"})
    refresh_notebook(source)


def test_a_kernel_that_does_not_start_is_one_line(notebook, tmp_path, monkeypatch):
    monkeypatch.setattr(LocalSockets, "kernel_spec", KernelSpec(argv=["/bin/false"], language="python"))
    with pytest.raises(InputError, match="two_cells.ipynb for toy: its kernel did not start; .* ipykernel --version"):
        run_notebook(notebook(""), tmp_path / "executed.ipynb", {"slug": "toy"})


def test_noise_of_a_kernel_at_its_end_is_not_shown(notebook, tmp_path, capfd):
    noise = "import atexit, os, sys\natexit.register(lambda: os.write(sys.__stderr__.fileno(), b'noise'))"
    run_notebook(notebook(noise), tmp_path / "executed.ipynb", {"slug": "toy"})
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("cell", "said"),
    [("raise ValueError('odd')", "ValueError: odd; it is left"), ("import os\nos._exit(1)", "its kernel was killed")],
)
def test_a_notebook_that_fails_in_place_is_one_line_and_left_alone(notebook, cell, said):
    path = notebook(cell)
    before = path.read_bytes()
    with pytest.raises(InputError, match=said):
        refresh_notebook(path)
    assert path.read_bytes() == before


def test_a_notebook_is_refreshed_without_a_word(notebook, capfd):
    path = notebook(LOCAL)
    refresh_notebook(path)
    assert [cell.execution_count for cell in nbformat.read(path, as_version=4).cells] == [1, 2]
    assert capfd.readouterr() == ("", "")


def test_a_kernel_ends_when_it_is_asked_to_and_leaves_no_file(notebook, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for blow in ("send_signal", "terminate", "kill"):
        monkeypatch.setattr(LocalProvisioner, blow, lambda *_, blow=blow, **__: pytest.fail(blow))
    run_notebook(notebook(LOCAL), tmp_path / "executed.ipynb", {"slug": "toy"})
    refresh_notebook(notebook(LOCAL))
    gc.collect()
    assert not list(tmp_path.glob("llmva-*"))


def test_a_kernel_that_does_not_answer_is_stopped():
    kernel = LocalKernel(kernel_name="python3", shutdown_wait_time=0.4)
    kernel.start_kernel()
    client = kernel.client()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    client.execute("import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(600)")
    client.stop_channels()
    kernel.shutdown_kernel()
    assert not kernel.is_alive()


def test_notebooks_are_checked_on_such_kernels_too(notebook):
    options = ["-p", "tests.local_kernels", "-p", "no:cacheprovider", "--nbval-lax", "--nbval-current-env"]
    command = [sys.executable, "-m", "pytest", *options, str(notebook(LOCAL))]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0 and "2 passed" in done.stdout and "IPKernelApp" not in done.stderr


def test_notebooks_of_a_check_share_a_kernel_and_nothing_else(notebook, tmp_path):
    left = "import os, pathlib\nassert 'left' not in globals()\nleft = 1\n"
    left += "pathlib.Path('{}').write_text(str(os.getpid()))"
    for name in ("a", "c"):
        notebook(left.format(name), name)
    # One that fails harms none behind it.
    notebook("left = 1\nraise ValueError", "b")
    options = ["-p", "tests.local_kernels", "-p", "no:cacheprovider", "--nbval-lax", "--nbval-current-env"]
    command = [sys.executable, "-m", "pytest", "-q", *options, *map(str, sorted(tmp_path.glob("*.ipynb")))]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=300)
    first, last = ((tmp_path / name).read_text() for name in ("a", "c"))
    assert first == last and "b.ipynb::Cell 1" in done.stdout and "1 failed, 5 passed" in done.stdout
    with pytest.raises(ProcessLookupError):
        os.kill(int(first), 0)


@pytest.fixture
def study(notebook, tmp_path, monkeypatch):
    """Two notebooks of a study, which leave the number of their process and what they saw."""
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path)
    monkeypatch.setattr(paths, "RUNS", tmp_path / "runs")
    source = "import os\nfrom llmva.core.parallel import process_pool\n"
    source += "assert process_pool(1).submit(abs, -1).result() == 1\n"
    source += "print(os.getpid(), 'left' in globals(), slug)\nleft = 1"
    for name in ("00_first", "01_second"):
        notebook(source, name)
    monkeypatch.setattr(notebooks, "load_params", lambda slug: load_params("tiny-llama"))
    return tmp_path


def shown(path):
    return nbformat.read(path, as_version=4).cells[-1].outputs[0]["text"].split()


def test_notebooks_of_a_study_share_a_kernel_and_no_names(study):
    executed = notebooks.execute_notebooks(["00", "01"], "tiny-llama")
    (first, *seen), (second, *later) = map(shown, executed)
    assert first == second and seen == later == ["False", "tiny-llama"]
    # The process has ended with the last of them.
    with pytest.raises(ProcessLookupError):
        os.kill(int(first), 0)


def test_what_make_has_listed_is_run_once(study):
    listed = study / "due"
    listed.write_text("01_second\n00_first\n01_second\n")
    marks = study / "runs" / "tiny-llama" / "due"
    marks.mkdir(parents=True)
    (marks / "01_second").touch()
    notebooks.execute_due(listed, "tiny-llama")
    assert not list(marks.iterdir())
    executed = study / "runs" / "tiny-llama" / "executed"
    assert sorted(path.name for path in executed.iterdir()) == ["00_first.ipynb", "01_second.ipynb"]
    times = {path: path.stat().st_mtime_ns for path in executed.iterdir()}
    notebooks.execute_due(listed, "tiny-llama")
    assert not listed.exists() and {path: path.stat().st_mtime_ns for path in executed.iterdir()} == times


def test_a_list_that_never_was_is_one_line(study, capsys):
    with pytest.raises(SystemExit) as done:
        notebooks.main(["--due", str(study / "nope")])
    assert (done.value.code, capsys.readouterr().err) == (
        2,
        f"error: {study / 'nope'}: no such list of notebooks; name one, or the notebooks themselves\n",
    )
    assert not list(study.glob("*nope*"))


def test_a_list_that_failed_is_not_taken_for_done(study, notebook):
    notebook("raise ValueError('odd')", "02_third")
    listed = study / "llama-3.1-8b"
    listed.write_text("02_third\n")
    with pytest.raises(InputError, match="02_third.ipynb for tiny-llama: ValueError: odd"):
        notebooks.execute_due(listed, "tiny-llama")
    # Where Make looks for it.
    assert (study / "llama-3.1-8b.taken").is_file()
    with pytest.raises(InputError, match="a notebook failed before"):
        notebooks.execute_due(listed, "tiny-llama")
