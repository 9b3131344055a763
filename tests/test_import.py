"""`import memx` alone reaches the subpackages, and imports no torch until one is used."""

import subprocess
import sys


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_a_bare_import_reaches_the_subpackages():
    done = run("import memx; memx.namm.load, memx.memory_layers.MemoryLayer, memx.namm.Rule(budget=0.25)")
    assert done.returncode == 0, done.stderr


def test_results_are_reached_without_torch():
    done = run("import sys, memx; memx.results.read_rows, memx.results.RunStore; sys.exit('torch' in sys.modules)")
    assert done.returncode == 0, done.stderr


def test_dir_lists_the_subpackages_and_imports_none():
    code = """
import sys, memx
names = dir(memx)
assert {"namm", "memory_layers", "results", "MemoryLayer", "MemxError"} <= {*names}, names
assert len(names) == len({*names}), names
assert not {"torch", "transformers", "memx.namm", "memx.memory_layers", "memx.results"} & {*sys.modules}
"""
    done = run(code)
    assert done.returncode == 0, done.stderr


def test_an_unknown_name_is_an_attribute_error():
    done = run("import memx; memx.nam")
    assert done.returncode == 1
    assert "AttributeError: module 'memx' has no attribute 'nam'" in done.stderr
