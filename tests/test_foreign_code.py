"""No code from a file that memx reads is run: nothing is unpickled, and a model folder's Python stays text."""

import ast
import json
from pathlib import Path

import pytest
from memx.errors import MemxError
from memx.experiments.base_models.load import host_config, load_host

from .experiments.evolution.tiny_evolution import write_host

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("cli", "experiments", "kernels", "memory_layers", "namm", "results")
# calls that can run what a file holds, by the last part of their name
UNPICKLE = {"load", "loads", "Unpickler"}
# an error's own copy, made and read in one process
ALLOWED = {("experiments/distributed/rank_errors.py", "pickle.loads")}


def dangerous(tree):
    """Calls of a module that unpickle, or evaluate text, and options that allow it."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        owner, _, last = name.rpartition(".")
        if (owner in ("pickle", "torch", "joblib", "marshal", "dill") and last in UNPICKLE) or name in ("eval", "exec"):
            yield name
        if owner == "yaml" and last in ("load", "unsafe_load", "full_load") and not ast.unparse(node).count("Loader="):
            yield name
        for keyword in node.keywords:
            true = isinstance(keyword.value, ast.Constant) and keyword.value.value is True
            if keyword.arg in ("allow_pickle", "trust_remote_code") and not (
                isinstance(keyword.value, ast.Constant) and keyword.value.value is False
            ):
                yield f"{name}({keyword.arg}={'True' if true else '...'})"


def test_no_module_unpickles_or_evaluates():
    files = [path for part in PARTS for path in (ROOT / part).rglob("*.py")] + list(ROOT.glob("*.py"))
    found = {(str(path.relative_to(ROOT)), call) for path in files for call in dangerous(ast.parse(path.read_text()))}
    assert len(files) > 200 and found == ALLOWED


@pytest.mark.parametrize(
    "code", ["pickle.load(f)", "torch.load(p)", "np.load(p, allow_pickle=True)", "eval(x)", "yaml.load(text)",
             "A.from_pretrained(n, trust_remote_code=True)", "A.from_pretrained(n, trust_remote_code=given)"]
)  # fmt: skip
def test_such_a_call_would_be_found(code):
    assert list(dangerous(ast.parse(code)))


def test_python_files_of_a_model_folder_are_not_run(tmp_path):
    folder = write_host(tmp_path / "host")
    mark = tmp_path / "was-run"
    text = f"open({str(mark)!r}, 'w').close()\nclass Config: pass\nclass Model: pass\n"
    (folder / "modeling_own.py").write_text(text)
    path = folder / "config.json"
    own = {"AutoConfig": "modeling_own.Config", "AutoModelForCausalLM": "modeling_own.Model"}
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "auto_map": own}))
    load_host(str(folder))  # the class that transformers has for it
    path.write_text(json.dumps({**config, "auto_map": own, "model_type": "its-own"}))
    for read in (host_config, load_host):
        with pytest.raises(MemxError):
            read(str(folder))
    assert not mark.exists()
