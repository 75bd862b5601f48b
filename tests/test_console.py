"""The console command: a screen of help, quickly; the commands behind it; and a wheel that needs no repository."""

import os
import re
import subprocess
import sys
import sysconfig
import venv

import pytest
from conftest import prompt_table, save_random_model

from llmva import __version__
from llmva.commands import console
from llmva.core.paths import ROOT

SCREEN = 24, 80


def run(*arguments, **options):
    command = [sys.executable, "-m", "llmva", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, **options)


@pytest.mark.parametrize("asked", [(), ("--help",), ("-h",), ("help",)])
def test_help_fits_a_screen(asked):
    done = run(*asked)
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and len(lines) <= SCREEN[0] and max(map(len, lines)) <= SCREEN[1]
    assert all(any(line.split()[:1] == [name] for line in lines) for name in console.COMMANDS)


def test_help_imports_nothing_heavy():
    code = "import sys; from llmva.commands.console import main\ntry:\n main(['--help'])\nexcept SystemExit: pass\n"
    code += "print(sorted({'torch', 'transformers', 'pandas', 'numpy', 'matplotlib'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_version_is_the_packages():
    assert run("--version").stdout == f"llmva {__version__}\n"


def test_an_unknown_command_is_one_line():
    done = run("algin")
    assert done.returncode == 2 and done.stderr.startswith("error: algin: no such command; choose align, plan")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", console.COMMANDS)
def test_each_command_has_help_of_its_own(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [])
    with pytest.raises(SystemExit) as done:
        console.main([name, "--help"])
    assert done.value.code == 0 and capsys.readouterr().out.startswith(f"usage: python -m llmva {name}")


def test_a_mistake_in_a_command_is_one_line():
    done = run("align", "--speed", "9")
    assert done.returncode == 2 and re.fullmatch("error: .*`python -m llmva align --help`.*\n", done.stderr)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["align", "--model", "x", "--judge", ""], "--judge"),
        (["align", "--model", "x", "--data= "], "--data"),
        (["doctor", ""], "an argument"),
        (["plan", "--model", ""], "--model"),
        (["notebooks", "05", "--due", ""], "--due"),
    ],
)
def test_an_option_of_nothing_is_one_line(arguments, name, capsys):
    with pytest.raises(SystemExit) as done:
        console.main(arguments)
    assert done.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: {name}: is empty; write a value, or leave it out; `python -m")


# The wheel


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Return the folder of an environment that has the wheel, and of this one only what it depends on."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    subprocess.run([*pip, "wheel", *options, "--wheel-dir", folder, ROOT], check=True)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "env")
    python = folder / "env" / "bin" / "python"
    # What PYTHONPATH names would count as installed.
    there = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    install = [*pip, "--python", python, "install", "--no-deps", "--no-index", "--quiet", wheel]
    subprocess.run(install, check=True, env=there)
    # A folder of a .pth file is searched, but its own .pth files, as that of an editable install, are not read.
    (packages,) = (folder / "env" / "lib").glob("python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "env"


def in_an_empty_folder(installed, tmp_path, *command):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "LLMVA"))}
    (tmp_path / "empty").mkdir(exist_ok=True)
    command = [str(installed / "bin" / command[0]), *map(str, command[1:])]
    return subprocess.run(
        command, cwd=tmp_path / "empty", env=environment, capture_output=True, text=True, check=False, timeout=300
    )


def test_a_wheel_has_the_command_the_notebooks_and_the_parameter_files(installed, tmp_path):
    assert "align" in in_an_empty_folder(installed, tmp_path, "llmva", "--help").stdout
    code = "from llmva.core import paths; from llmva import align, EditLog; "
    code += "print(paths.ROOT, paths.NOTEBOOKS.parent.name, (paths.NOTEBOOKS / '14_align_your_model.ipynb').is_file(), "
    code += "(paths.PARAMS / 'llama-3.1-8b.yaml').is_file())"
    done = in_an_empty_folder(installed, tmp_path, "python", "-c", code)
    assert done.stdout.split() == [str(tmp_path / "empty"), "llmva", "True", "True"], done.stderr


def test_a_wheel_aligns_a_model_without_a_repository(installed, tmp_path):
    prompt_table(40).to_csv(tmp_path / "prompts.csv", index=False, columns=["prompt", "label"])
    given = ["--model", save_random_model(tmp_path / "model"), "--data", tmp_path / "prompts.csv", "--out", "aligned"]
    quick = ["--iterations", "1", "--max-new-tokens", "4", "--threads", "1"]
    done = in_an_empty_folder(installed, tmp_path, "llmva", "align", *given, *quick)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "empty" / "aligned" / "report.html").is_file()
    shown = {path.name for path in (tmp_path / "empty").iterdir() if not path.name.startswith(".")}
    assert shown == {"aligned", "runs"}
