"""`memx doctor` finds what is there, and says of what is broken or missing how to mend it."""

import http.server
import json
import re
import threading
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from memx.experiments.doctor import machine, packages, places
from memx.experiments.doctor import run as doctor
from memx.experiments.doctor.check import Check, failures, guarded
from memx.kernels.registry import OPS

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def test_everything_that_memx_needs_is_checked_and_works(offline, tmp_path):
    checks = doctor.examine(tmp_path)
    assert not failures(checks), failures(checks)
    names = {check.name for check in checks}
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    wanted = {re.split("[>=;\\[ ]", one)[0] for one in needed} - {"triton"}
    assert wanted <= names
    assert {f"{op.name}, cpu" for op in OPS} <= names
    assert {"universal", "smollm2"} <= {check.name for check in checks if check.group == machine.NAMMS}
    assert "HF_HUB_OFFLINE" in checks[-1].found
    for check in checks:
        assert check.state == "ok" or check.fix, check


def test_extras_are_those_of_pyproject_without_those_for_developers(monkeypatch):
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    shown = {check.name for check in packages.extra_checks()}
    assert {f"memx[{extra}]" for extra in listed if extra not in ("docs", "notebooks", "test", "dev")} <= shown
    assert "memx[test]" not in shown


def test_a_missing_and_an_old_package_say_what_to_install(monkeypatch):
    known = metadata.version
    versions = {"torch": "1.0", "cma": None, "zstandard": None}

    def version(name):
        if name not in versions:
            return known(name)
        if versions[name] is None:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(packages.metadata, "version", version)
    found = {check.name: check for check in [*packages.package_checks(), *packages.extra_checks()]}
    assert found["torch"].state == "failed" and "1.0" in found["torch"].found
    assert found["cma"].state == "failed" and found["cma"].fix.startswith("pip install 'cma>=")
    assert found["memx[data]"].state == "missing" and found["memx[data]"].fix == "pip install 'memx[data]'"
    assert "zstandard" in found["memx[data]"].found.partition("missing: ")[2]


def test_an_installed_package_lists_its_needs_without_a_checkout(monkeypatch):
    lines = ["torch>=2.11", "numpy>=1", "zstandard>=0.1; extra == 'data'", 'never-there>=1; extra == "other"']
    monkeypatch.setattr(packages, "_ROOT", Path("/nowhere"))
    monkeypatch.setattr(packages.metadata, "requires", lambda name: lines)
    monkeypatch.setattr(packages.metadata, "metadata", lambda name: metadata.PackageNotFoundError and _Message())
    assert [check.name for check in packages.package_checks()][2:] == ["torch", "numpy"]
    found = {check.name: check for check in packages.extra_checks()}
    assert found["memx[other]"].fix == "pip install 'memx[other]'"
    assert "never-there" in found["memx[other]"].found


class _Message:
    def get_all(self, name):
        return ["data", "other", "dev"]


def test_an_op_that_computes_wrongly_fails(monkeypatch):
    op = next(op for op in OPS if op.name == "bag_dot")
    wrong = vars(op) | {"run": lambda *inputs, impl: op.run(*inputs, impl=impl) + 1}
    check = machine._op(type(op)(**wrong), torch.device("cpu"))
    assert check.state == "failed" and "FAIL" in check.found and check.fix


@pytest.mark.parametrize(("code", "state"), [(200, "ok"), (403, "ok"), (None, "missing")])
def test_the_hub_is_asked_once_and_briefly(monkeypatch, code, state):
    class Answer(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(code)
            self.end_headers()

        def log_message(self, *given):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Answer)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    if code is None:
        server.server_close()
    else:
        threading.Thread(target=server.handle_request, daemon=True).start()
    assert places.hub_check(5.0).state == state
    server.server_close()


def test_a_folder_that_cannot_be_made_is_a_failure(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    runs, *_ = places.folder_checks(file / "runs")
    assert runs.state == "failed" and str(file) in runs.found
    made, *_ = places.folder_checks(tmp_path / "not" / "yet")
    assert made.state == "ok" and not (tmp_path / "not").exists()


def test_what_raises_is_one_failed_check():
    def broken():
        raise ImportError("libtorch.so: no such file\nand more")

    (check,) = guarded("Devices", "Devices", "reinstall", broken)
    assert check == Check("Devices", "Devices", "failed", "ImportError: libtorch.so: no such file", "reinstall")


def test_the_command_exits_with_1_only_for_what_memx_needs(monkeypatch, capsys):
    from memx.cli.main import run

    fine = Check("Packages that memx needs", "memx", "ok", "0.1.0")
    lacking = Check("Optional packages", "memx[eval]", "missing", "missing: lm-eval", "pip install 'memx[eval]'", "x")
    monkeypatch.setattr(doctor, "examine", lambda runs, progress: [fine, lacking])
    assert run(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert "memx works here." in shown and "pip install 'memx[eval]'" in shown
    bad = Check("Devices", "cpu", "failed", "none", "buy one")
    monkeypatch.setattr(doctor, "examine", lambda runs, progress: [fine, lacking, bad])
    assert run(["doctor", "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert said["works"] is False and said["checks"][-1]["fix"] == "buy one"
