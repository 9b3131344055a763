"""`memx bench eviction` on the command line: tables, JSON, saved runs and exit codes."""

import json

import pytest
from memx.cli.main import run as memx
from memx.experiments.benchmarks.eviction import correctness as evict_bench_check

QUICK = ["bench", "eviction", "prefill", "decode", "--device", "cpu", "--context", "64",
         "--interval", "32", "--new-tokens", "2", "--steps", "1", "--policy", "knorm"]  # fmt: skip


def test_tables_and_a_saved_run_to_compare_with(capsys, tmp_path):
    assert memx([*QUICK, "--save", str(tmp_path / "run")]) == 0
    out = capsys.readouterr().out
    for said in (
        "prefill host=tiny-llama context=64 batch=1",
        "plain, pieces of 32",
        "knorm 0.5",
        "KV MB",
        "extra %: ",
    ):
        assert said in out
    assert memx([*QUICK, "--against", str(tmp_path / "run"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {fact["kind"] for fact in found["comparison"]} == {"plain", "plain, pieces of 32", "knorm 0.5"}


def test_what_is_wrong_fails_without_a_speed(capsys, monkeypatch):
    monkeypatch.setattr(evict_bench_check, "logits_error", lambda *given: 0.5)
    assert memx(QUICK) == 1
    captured = capsys.readouterr()
    assert (
        "FAIL: logits differ from the unmodified model by 5.0e-01" in captured.out
        and "x unmodified" not in captured.out.split("\n")[1]
    )
    assert "wrong results: prefill host=tiny-llama context=64 batch=1: namm-keep-all" in captured.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--policy", "snapvk"], "snapkv"),
        (["--model", "no such host"], "no model or folder"),
        (["--budget", "0"], "budget must be in (0, 1] or a whole number of tokens, got 0"),
        (["--budget", "1.5"], "budget must be in (0, 1] or a whole number of tokens, got 1.5"),
        (["--context", "16"], "--interval"),
        (["--interval", "20"], "multiple of 16"),
    ],
    ids=str,
)
def test_mistakes(capsys, arguments, said):
    place = QUICK.index(arguments[0]) if arguments[0] == "--interval" else len(QUICK)
    assert memx([*QUICK[:place], *arguments, *QUICK[place + 2 :]]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and said in captured.err and len(captured.err.strip().splitlines()) <= 2
