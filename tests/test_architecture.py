"""The house: floors that only look down, short modules, docstrings, and nothing that runs a stranger's code."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from llmva.core.paths import ROOT

PACKAGE = ROOT / "src" / "llmva"
MODULES = sorted(PACKAGE.rglob("*.py"))
MAX_LINES = 300
PACKAGES = tuple(sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py")))

each = pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())


def unit_of(path: Path) -> str:
    """Return the package that a module is in, as the table of floors names it; or the module, if it is in none."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return f"{parts[0]}/" if parts[0] in PACKAGES else parts[0]


def read_floors() -> list[list[str]]:
    """Return the packages on each floor, as the README's table has them."""
    rows = re.findall(r"^\| (\d+) \| ([^|]+) \|", README, flags=re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(len(rows)))
    return [re.findall(r"`([a-z_0-9]+/)`", packages) for _, packages in rows]


def read_order(package: str) -> list[str]:
    """Return the order in which README's table has a package's modules to be read."""
    chain = re.search(rf"^\| \d+ \| [^|]*`{package}/`[^|]*\|[^|]*?((?:`\w+` -> )+`\w+`)", README, flags=re.MULTILINE)
    return re.findall(r"`(\w+)`", chain.group(1))


README = (ROOT / "README.md").read_text(encoding="utf-8")
FLOORS = read_floors()
ORDER = [package for packages in FLOORS for package in packages]


def imports_of(path: Path) -> list[str]:
    """Return the units of this package that a module imports, anywhere in it."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name the whole path"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    inner = [name.split(".")[1] for name in found if name.startswith("llmva.")]
    units = [f"{name}/" if name in PACKAGES else name for name in inner if name != "__version__"]
    return [unit for unit in units if unit != unit_of(path)]


# Floors


def test_the_table_of_floors_names_every_package_once():
    assert sorted(ORDER) == [f"{package}/" for package in PACKAGES]


def test_every_module_is_in_a_package():
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py", "__main__.py"}
    assert {path.parent.relative_to(PACKAGE).parts[:1] for path in MODULES} == {(), *((name,) for name in PACKAGES)}


@each
def test_a_module_imports_from_floors_above_it_or_from_its_left(path):
    unit = unit_of(path)
    # The face of the library is in no package, and may import nothing; its other name is a command.
    allowed = {"commands/"} if unit == "__main__" else set(ORDER[: ORDER.index(unit)]) if unit in ORDER else set()
    assert set(imports_of(path)) <= allowed


def test_the_packages_have_no_circle():
    require_no_circle(
        {f"{package}/": {unit for path in (PACKAGE / package).rglob("*.py") for unit in imports_of(path)}
         for package in PACKAGES}
    )  # fmt: skip


def test_the_method_is_read_in_the_order_that_the_table_gives():
    order = read_order("method")
    assert len(order) == 5
    for number, name in enumerate(order):
        needed = modules_imported(PACKAGE / "method" / f"{name}.py")
        assert not needed & {f"llmva.method.{later}" for later in order[number:]}, name


def test_the_check_of_imports_sees_them(tmp_path, monkeypatch):
    planted = tmp_path / "planted.py"
    planted.write_text(
        "import llmva.paper.tables\nfrom llmva import models\n\n\ndef f():\n    from llmva.steering import tune\n"
    )
    monkeypatch.setitem(globals(), "PACKAGE", tmp_path)
    assert imports_of(planted) == ["paper/", "models/", "steering/"]


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_has_no_circle_inside(package):
    inner = {module_name(path): modules_imported(path) for path in (PACKAGE / package).rglob("*.py")}
    require_no_circle({name: (needed & inner.keys()) - {name} for name, needed in inner.items()})


def test_the_check_of_circles_sees_one():
    require_no_circle({"a": {"b"}, "b": set()})
    with pytest.raises(AssertionError, match="a circle among"):
        require_no_circle({"a": {"b"}, "b": {"c"}, "c": {"b"}})


def require_no_circle(waiting: dict[str, set[str]]) -> None:
    """Take away, again and again, what needs nothing that is left."""
    while waiting:
        free = {name for name, needed in waiting.items() if not needed & waiting.keys()}
        assert free, f"a circle among {sorted(waiting)}"
        waiting = {name: needed for name, needed in waiting.items() if name not in free}


def module_name(path: Path) -> str:
    """Return a module's dotted name; a package's face is the package."""
    return ".".join(("llmva", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")


def modules_imported(path: Path) -> set[str]:
    """Return the dotted names that a module imports from: a module, or a name in a package's face."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (inner & NAMES) or {node.module}
    return found


NAMES = {module_name(path) for path in MODULES}


@pytest.mark.parametrize("package", ["core", "prompts", "paper", "measures.intervals"])
def test_what_needs_no_model_imports_no_torch(package):
    inner = {module_name(path) for path in MODULES if not path.stem.startswith("__main__")}
    names = [name for name in inner if f"{name}.".startswith(f"llmva.{package}.")]
    code = f"import sys, {', '.join(names)}; print({{'torch', 'transformers', 'sklearn'}} & {{*sys.modules}})"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "set()"


@pytest.mark.parametrize(("variable", "package"), [("STUDY", "study"), ("ORGANISM", "organisms")])
def test_make_knows_every_package_that_a_stage_imports(variable, package):
    needed, waiting = set(), {f"{package}/"}
    while waiting:
        needed |= waiting
        inside = [path for path in MODULES if unit_of(path) in waiting]
        waiting = {unit for path in inside for unit in imports_of(path)} - needed
    listed = re.search(rf"^{variable} := \$\(call modules,([a-z_ ]+)\)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert needed <= {f"{name}/" for name in listed[1].split()}


# Form


@each
def test_a_module_is_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


@each
def test_everything_public_has_a_docstring(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    bare = [name for name, node in public_parts(tree, "module") if not ast.get_docstring(node)]
    assert not bare


def public_parts(node: ast.AST, name: str):
    """Yield a module, class or function and what is public in it, one inside another."""
    yield name, node
    for child in ast.iter_child_nodes(node):
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        if isinstance(child, kinds) and not child.name.startswith("_") and not isinstance(node, ast.FunctionDef):
            yield from public_parts(child, f"{name}.{child.name}")


def test_the_check_of_docstrings_sees_methods():
    tree = ast.parse(
        '"""M."""\nclass A:\n    """A."""\n    def b(self):\n        def inner(): pass\n    def _c(self): pass\n'
    )
    assert [name for name, node in public_parts(tree, "m") if not ast.get_docstring(node)] == ["m.A.b"]


# Safety


@each
def test_nothing_runs_code_from_a_file_or_a_hub(path):
    text = path.read_text(encoding="utf-8")
    forbidden = r"\b(pickle|cloudpickle|dill|joblib|shelve|marshal)\b|torch\.load\b|trust_remote_code|\beval\(|\bexec\("
    # `.eval()` of a torch module takes no argument and runs nothing, and transformers asks unless it is told not to.
    assert not re.search(forbidden, text.replace(".eval()", "").replace("trust_remote_code=False", ""))


@each
def test_random_draws_never_use_the_global_state(path):
    calls = r"numpy\.random\.(?!Generator|default_rng|SeedSequence)\w+\(|(?<![\w.])random\.(?!Random\b)[a-z]\w*\("
    assert not re.search(calls, path.read_text(encoding="utf-8"))


# Dependencies


def test_every_direct_dependency_is_pinned_within_its_range():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [
        Requirement(text) for text in project["dependencies"] + sum(project["optional-dependencies"].values(), [])
    ]
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    pins = {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}
    for requirement in needed:
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement
    assert pins["torch"] == "2.13.0"


def test_every_package_that_is_imported_is_a_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {canonicalize_name(Requirement(text).name) for text in project["dependencies"]}
    named = {"sklearn": "scikit-learn", "yaml": "pyyaml"}
    for path in MODULES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        modules = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
        modules += [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        others = {module.split(".")[0] for module in modules} - set(sys.stdlib_module_names) - {"llmva"}
        assert {canonicalize_name(named.get(name, name)) for name in others} <= declared, path.name
