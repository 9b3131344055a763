"""The rules that the folders keep: who imports whom, what is packaged, what needs no torch."""

import ast
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from memx import namm

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = ROOT / "pyproject.toml"
PARTS = ("cli", "experiments", "memory_layers", "namm", "kernels", "results")
ALLOWED = {
    "cli": {"experiments", "results"},
    "experiments": {"memory_layers", "namm", "kernels", "results"},
    "memory_layers": {"kernels"},
    "namm": {"kernels"},
    "kernels": set(),
    "results": set(),
}
DATA = ("*.yaml", "*.csv", "*.c", "*.html", "*.css", "*.js")  # files that are no Python and belong to the package
TORCH_FREE = [
    "cli/**/*.py", "results/**/*.py", "experiments/config/*.py", "experiments/metrics/*.py",
    "experiments/planning/[!e]*.py", "experiments/optim/schedule.py", "experiments/runtime/options.py",
    "experiments/policy_eval/sources.py", "experiments/policy_eval/cost.py",
    "memory_layers/config.py", "memory_layers/placement.py", "memory_layers/sizes.py", "memory_layers/slots.py",
]  # fmt: skip


def imports(path: Path) -> list[tuple[str, bool]]:
    """Absolute dotted names that a file imports inside memx (without `memx.`) or outside, and whether inside."""
    package = path.relative_to(ROOT).parent.parts
    found = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found += [(alias.name, False) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                base = package[: len(package) - node.level + 1]
                found.append((".".join([*base, *(node.module or "").split(".")]).strip("."), True))
                if not node.module:
                    found += [(".".join([*base, alias.name]), True) for alias in node.names]
            else:
                found.append((node.module or "", False))
    return found


@pytest.mark.parametrize("part", PARTS)
def test_parts_import_only_what_the_design_allows(part):
    for path in (ROOT / part).rglob("*.py"):
        for name, inside in imports(path):
            head = name.split(".")[0]
            if inside and head in PARTS and head != part:
                assert head in ALLOWED[part], f"{path.relative_to(ROOT)} imports {name}"
            assert inside or not name.startswith("memx"), f"{path.relative_to(ROOT)}: use a relative import of {name}"


def test_imports_point_down_and_run_in_no_circle():
    """The contracts of `[tool.importlinter]` in pyproject.toml."""
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(sys.argv[1], no_cache=True))"
    checked = subprocess.run([sys.executable, "-P", "-c", code, str(PYPROJECT)], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert " 0 broken" in checked.stdout


def folders_of_code() -> list[Path]:
    """Every folder of the six parts that is a package."""
    return sorted({path.parent for part in PARTS for path in (ROOT / part).rglob("__init__.py")})


@pytest.mark.parametrize("folder", folders_of_code(), ids=lambda folder: str(folder.relative_to(ROOT)))
def test_a_folder_holds_3_to_15_modules(folder):
    """Folders in it count too. An op without kernels of its own has its definition and its choice alone."""
    modules = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
    folders = [path for path in folder.iterdir() if (path / "__init__.py").is_file()]
    assert len(modules) <= 15, [path.name for path in modules]
    fewest = 2 if (folder / "reference.py").is_file() else 3
    assert len(modules) + len(folders) >= fewest, [path.name for path in modules]


def test_torch_free_files_import_no_torch():
    for pattern in TORCH_FREE:
        files = list(ROOT.glob(pattern))
        assert files, pattern
        for path in files:
            for name, _ in imports(path):
                assert name.split(".")[0] not in ("torch", "transformers", "safetensors"), f"{path} imports {name}"


def test_import_memx_imports_no_torch():
    code = "import sys, memx; memx.MemxError; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_every_package_and_data_file_is_in_the_build():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    folders = {path.parent for part in PARTS for path in (ROOT / part).rglob("__init__.py")}
    expected = {"memx", *(".".join(["memx", *folder.relative_to(ROOT).parts]) for folder in folders)}
    assert set(settings["packages"]) == expected
    data = {path for part in PARTS for kind in DATA for path in (ROOT / part).rglob(kind)
            if "runs" not in path.parts and "figures" not in path.parts and "reference" not in path.parts}  # fmt: skip
    data |= {path for path in (ROOT / "namm" / "shipped").rglob("*") if path.is_file()}
    packaged = {
        path
        for package, patterns in settings["package-data"].items()
        for pattern in patterns
        for path in ROOT.joinpath(*package.split(".")[1:]).glob(pattern)
    }
    assert data == packaged


def build_wheel(folder: Path) -> Path:
    """Build from a copy: a build leaves files behind, and must not read those of an older one. It ships a NAMM."""
    leave = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "runs", "figures", "__pycache__")
    source = shutil.copytree(ROOT, folder / "source", ignore=leave)
    namm.save(namm.Namm(every=64), source / "namm" / "shipped" / "of-the-test", card="# a\n\nMade by a test.\n")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(source)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def try_out(python: Path, folder: Path) -> None:
    """--help, presets, a tiny training run and its figure, away from the checkout."""
    memx = str(python.parent / "memx")
    where = subprocess.run(
        [str(python), "-c", "import memx; print(memx.__file__)"], capture_output=True, text=True, cwd=folder, check=True
    )
    assert str(ROOT) not in where.stdout
    code = "from memx import namm; assert namm.shipped_namms()['of-the-test'] == 'Made by a test.'; "
    code += "assert namm.load('of-the-test').every == 64"
    subprocess.run([str(python), "-c", code], cwd=folder, check=True)
    steps = ["--steps", "5", "--set", "data.biographies=20"]
    for arguments in (["--help"], ["presets"], ["train", "tiny", *steps], ["plot", "--published", "--formats", "png"]):
        result = subprocess.run([memx, *arguments], capture_output=True, text=True, cwd=folder)
        assert result.returncode == 0, result.stderr
    assert (folder / "results" / "figures" / "memory.png").stat().st_size > 10_000


def test_a_built_wheel_works_outside_the_checkout(tmp_path):
    """The wheel in a new environment; its dependencies are read from this one, memx itself is not."""
    wheel = build_wheel(tmp_path)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    here, there = (
        subprocess.run(
            [str(p), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], capture_output=True, text=True
        ).stdout.strip()
        for p in (sys.executable, python)
    )
    # a path added by a .pth file has its own .pth files ignored: the editable memx of this environment stays out
    (Path(there) / "dependencies.pth").write_text(here + "\n")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", "--quiet"]
    subprocess.run([*pip, "--ignore-installed", str(wheel)], check=True, capture_output=True, text=True)
    try_out(python, tmp_path)


@pytest.mark.slow
def test_a_built_wheel_works_in_an_empty_environment(tmp_path):
    """The wheel in an environment of its own, with every dependency installed from the package index."""
    wheel = build_wheel(tmp_path)
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    constraints = str(ROOT / "constraints.txt")
    command = [str(python), "-m", "pip", "install", "--quiet", "-c", constraints, str(wheel)]
    subprocess.run(command, check=True, capture_output=True)
    try_out(python, tmp_path)
