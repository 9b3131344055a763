"""`memx eval-namm`: exit codes, the dry run, JSON, tables, and what it does with a run of `memx evolve-namm`."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from memx import namm
from memx.cli.main import run as memx
from memx.cli.output.eval_namm_summary import _over_baselines
from memx.errors import MemxError
from memx.experiments.config.base import to_yaml
from memx.experiments.config.eviction.tasks import HELD_OUT_TASKS
from memx.experiments.config.loading import load_evolution_config
from memx.experiments.policy_eval.sources import eval_tree
from memx.namm.policies.base import Rule
from memx.namm.policies.network import Namm
from memx.results.store.rows import Row

from ...experiments.evolution.tiny_evolution import settings, write_host
from ...namm.saved.shipped import ship, tiny_namm

COMMAND = "eval-namm"
SMALL = ["--length", "200", "--prompts", "1", "--threads", "1", "--set", "documents=1", "--set", "resamples=100"]


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    return write_host(tmp_path_factory.mktemp("host"))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("namm") / "mine"
    parameters = 0.3 * torch.randn(4172, generator=torch.Generator().manual_seed(0))
    namm.save(Namm(parameters, rule=Rule(budget=0.4), every=64), folder, host="smollm2", tasks=["key_values"])
    return folder


def mistake(capsys, *arguments):
    assert memx(list(arguments)) == 2
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    lines = lines[[line.startswith("error: ") for line in lines].index(True) :]  # a host is looked for on the way
    assert captured.out == "" and len(lines) <= 2 and "Traceback" not in captured.err, captured
    return captured.err


def test_a_run_without_a_namm_names_the_command_that_continues_it(capsys, tmp_path):
    folder = tmp_path / "namm-12345678"
    folder.mkdir()
    (folder / "config.yaml").write_text("extends: namm-tiny\ncommand: evolve-namm\n")
    told = mistake(capsys, COMMAND, str(folder))
    assert "has no NAMM yet" in told
    assert f"memx evolve-namm --config {folder / 'config.yaml'} --runs {tmp_path} --resume" in told


def test_a_run_of_training_is_not_one_of_an_evolution(capsys, tiny_run):
    told = mistake(capsys, COMMAND, str(tiny_run[0].folder))
    assert "is a run of memx train, not of memx evolve-namm" in told and "give a run of memx evolve-namm" in told


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        ([], "no NAMM to evaluate", "memx eval-namm universal"),
        (["nowhere"], "nowhere does not exist", "memx runs"),
        (["SAVED", "--model", "[bold]no[/bold]", "--dry-run"], "no model or folder '[bold]no[/bold]'", "smollm2"),
        (["."], "contains no NAMM and is not a run", "RUN/namm"),
        (["SAVED"], "a saved NAMM does not come with a model", "--model, e.g. smollm2"),
        (["SAVED", "--model", "no-such-host"], "no model or folder 'no-such-host'", "smollm2"),
        (["SAVED", "--model", "smollm2", "--task", "pass"], "no task 'pass'", "passkey"),
        (["SAVED", "--model", "smollm2", "--task", "nedles"], "no task 'nedles'", "did you mean 'needles'?"),
        (["SAVED", "--model", "smollm2", "--task", "infinitebench/passkei"], "no task", "'infinitebench/passkey'?"),
        (["SAVED", "--model", "smollm2", "--task", "zeroscrolls/x"], "no task 'zeroscrolls/x'", "has gov_report"),
        (["SAVED", "--model", "smollm2", "--task", "longbench-v2"], "no task 'longbench-v2'", ""),
        (["SAVED", "--model", "smollm2", "--policy", "snapkw"], "no policy 'snapkw'", "did you mean 'snapkv'?"),
        (["SAVED", "--model", "smollm2", "--policy", "full"], "no policy 'full'", ""),
        (["SAVED", "--model", "smollm2", "--budget", "1.5"], "budgets: 1.5 is no share below 1 and no number", "512"),
        (["SAVED", "--model", "smollm2", "--budget", "0.5", "--budget", "0.5"], "budgets has an entry twice", ""),
        (["SAVED", "--model", "smollm2", "--mode", "both"], "--mode: 'both' is not one of 'post_hoc'", "--help"),
        (["SAVED", "--model", "smollm2", "--split", "all"], "--split: 'all' is not one of 'train'", "--help"),
        (["SAVED", "--model", "smollm2", "--prompts", "0"], "prompts: ", ""),
        (["SAVED", "--model", "smollm2", "--interval", "100"], "every: ", ""),
        (["SAVED", "--model", "smollm2", "--third-party", "--mode", "online"], "kvpress evicts only once", "post_hoc"),
        (["SAVED", "--model", "smollm2", "--mode", "online", "--interval", "16"], "snapkv observes the last", "every"),
        (["SAVED", "--model", "smollm2", "--set", "prompt=3"], "unknown key 'prompt'", "'prompts'"),
        (["SAVED", "--config", "x.yaml"], "both name what to evaluate", "one of them"),
        (["--config", "namm-tiny"], "is a config for `memx evolve-namm`", "memx evolve-namm namm-tiny"),
        (["SAVED", "--model", "smollm2", "--resume", "--force"], "exclude each other", ""),
    ],
    ids=lambda value: " ".join(value)[:50] if isinstance(value, list) else "",
)  # fmt: skip
def test_mistakes_exit_2_with_one_line_and_a_hint(capsys, tmp_path, monkeypatch, saved, arguments, message, hint):
    monkeypatch.chdir(tmp_path)
    told = mistake(capsys, COMMAND, *(str(saved) if one == "SAVED" else one for one in arguments))
    assert message in told and hint in told
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_the_help_ends_in_three_examples(capsys):
    assert memx([COMMAND, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "--third-party" in shown and shown.partition("Examples:")[2].count("memx eval-namm") == 5


def test_a_dry_run_loads_and_writes_nothing(capsys, tmp_path, monkeypatch, host, saved):
    from memx.experiments.eviction import base_model as evolve_host

    def never(*arguments, **options):
        raise AssertionError("a dry run loads nothing")

    monkeypatch.setattr(evolve_host, "load_host", never)
    arguments = [COMMAND, str(saved), "--model", str(host), "--runs", str(tmp_path / "runs"), "--dry-run"]
    assert memx([*arguments, "--json", "--prompts", "3"]) == 0
    cost = json.loads(capsys.readouterr().out)
    assert cost["trained"] == ["key_values"] and len(cost["held_out"]) == 7
    assert cost["prompts"] == cost["prefills"] == 24 and cost["budgets"] == [0.75, 0.5, 0.4, 0.25, 0.125]
    assert cost["documents"] == 8 and cost["presses"] == []
    assert (
        memx([*arguments, "--json", "--prompts", "3", "--third-party", "--policy", "tova", "--policy", "recency"]) == 0
    )
    peers = json.loads(capsys.readouterr().out)
    assert peers["presses"] == ["TOVAPress"] and peers["answers"] == 24 * (1 + 5 * (1 + 2 + 1))
    assert peers["prefills"] == 2 * 24
    assert cost["answers"] == 24 * (1 + 5 * 10) and cost["written"] == cost["read_online"] == 0
    assert memx([*arguments, "--mode", "online", "--interval", "256", "--generate"]) == 0
    shown = capsys.readouterr().out
    assert "nothing was loaded" in shown and f"{50 * 8 * 16 * 768:,} tokens" in shown and "and generated" in shown
    assert not (tmp_path / "runs").exists()


def test_a_shipped_namm_is_evaluated_by_its_name(capsys, tmp_path, monkeypatch):
    """Recorded by name, so that the config is the same wherever memx lies; SmolLM2 is the default model."""
    monkeypatch.chdir(tmp_path)
    folder = ship(monkeypatch, tmp_path / "shipped")
    tree = eval_tree([Path("universal")], {})
    (source,) = tree["namms"]
    assert source["folder"] == "universal" and source["label"] == "namm" and source["evolved_on"] == "smollm2"
    assert tree["host"]["name"] == "smollm2" and tree["trained"] == ["needles", "facts"]
    assert tree["tasks"] == ["needles", "facts", *HELD_OUT_TASKS] and tree["every"] == 64
    both = eval_tree([Path("universal"), Path("smollm2")], {})
    assert [one["label"] for one in both["namms"]] == ["namm universal", "namm smollm2"]
    with pytest.raises(MemxError, match="does not come with a model"):
        eval_tree([Path("universal"), folder / "smollm2"], {})
    told = mistake(capsys, COMMAND, "univesal", "--dry-run")
    assert "univesal does not exist" in told and "did you mean 'universal'?" in told


def test_a_namm_has_its_own_allocation_too_unless_some_are_named(capsys, tmp_path, monkeypatch, host):
    monkeypatch.chdir(tmp_path)
    ship(monkeypatch, tmp_path / "shipped", rule=Rule(budget=0.5, allocation="global"))
    for arguments, allocations in (
        ([], ["equal", "namm: equal, global"]),
        (["--allocation", "table"], ["table"]),
        (["--set", "allocations_of={h2o: [table]}"], ["equal", "global", "h2o: table"]),
    ):
        fixed = ["--model", str(host), "--task", "passkey", *SMALL, "--dry-run", "--json"]
        assert memx([COMMAND, "universal", *fixed, *arguments]) == 0
        assert json.loads(capsys.readouterr().out)["allocations"] == allocations


def test_a_config_with_a_shipped_name_runs_wherever_memx_lies(capsys, tmp_path, monkeypatch, host):
    monkeypatch.chdir(tmp_path)
    runs = tmp_path / "runs"
    ship(monkeypatch, tmp_path / "one")
    arguments = ["--model", str(host), "--task", "passkey", "--budget", "0.5", "--policy", "recency", *SMALL]
    arguments += ["--runs", str(runs), "--json"]
    assert memx([COMMAND, "universal", *arguments]) == 0
    (run,) = runs.iterdir()
    rows = json.loads(capsys.readouterr().out)
    (run / "run.json").write_text((run / "run.json").read_text().replace('"finished"', '"interrupted"'))
    shutil.rmtree(tmp_path / "one")
    ship(monkeypatch, tmp_path / "another")
    again = [COMMAND, str(run / "config.yaml"), "--runs", str(runs), "--json"]
    assert memx([*again, "--resume"]) == 0
    values = [[(row["metric"], row["value"]) for row in one] for one in (rows, json.loads(capsys.readouterr().out))]
    assert values[0] == values[1]
    namm.save(tiny_namm(9), tmp_path / "another" / "universal")
    assert "the NAMM universal changed" in mistake(capsys, *again, "--name", "more")


def test_families_that_do_not_fit_are_left_out_or_named_all_at_once(capsys, tmp_path, host, saved):
    arguments = [COMMAND, str(saved), "--model", str(host), "--length", "130", "--prompts", "1"]
    arguments += ["--runs", str(tmp_path / "runs")]
    assert memx([*arguments, "--dry-run", "--json"]) == 0
    kept = json.loads(capsys.readouterr().out)["held_out"]
    assert 0 < len(kept) < 7
    assert memx([*arguments, "--dry-run"]) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "left out, as they need more than 130 tokens: " in told and "--length" in told
    out = [task for task in HELD_OUT_TASKS if task not in kept]
    assert all(f"{task} (" in told for task in out) and not any(f"{task} (" in told for task in kept)
    named = [part for task in out for part in ("--task", task)]
    for more in ([], ["--dry-run"]):
        told = mistake(capsys, *arguments, *named, *more)
        assert all(task in told for task in out) and "not fit in 130 tokens" in told and "use --length" in told
    assert "length 70,000 does not fit in the 2,048 positions" in mistake(
        capsys, *["70000" if argument == "130" else argument for argument in arguments]
    )
    assert not (tmp_path / "runs").exists()


def test_from_the_command_line_to_a_table(capsys, tmp_path, host, saved):
    runs = tmp_path / "runs"
    arguments = [COMMAND, str(saved), "--model", str(host), "--task", "key_values", "--task", "passkey", *SMALL]
    arguments += ["--budget", "0.5", "--policy", "tova", "--policy", "recency", "--name", "mine", "--runs", str(runs)]
    assert memx([*arguments, "--generate"]) == 0
    captured = capsys.readouterr()
    (run,) = runs.iterdir()
    assert run.name.startswith("mine-") and (run / "rows.jsonl").is_file()
    assert "budget 50% (prompts: 1 trained, 1 held-out" in captured.out and "budget 40%" in captured.out
    assert "score %" in captured.out and "minus other policies (95% CI)" in captured.out and "recency" in captured.out
    assert "prompt 2/2: passkey" in captured.err and f"next: memx plot namm {run}" in captured.err
    assert "exists" in mistake(capsys, *arguments, "--generate")
    assert memx([*arguments, "--generate", "--resume", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["variant"] for row in rows} == {"full", "namm", "tova", "recency", "random"}  # random: by kinds alone
    assert {row["budget"] for row in rows} == {None, 0.5, 0.4} and {row["size"] for row in rows} == {"budget"}
    copy = tmp_path / "copy.yaml"
    assert memx(["config", "copy", str(run / "config.yaml"), str(copy)]) == 0
    assert f"memx eval-namm {copy}" in capsys.readouterr().err
    again = [COMMAND, str(copy), "--name", "again", "--runs", str(runs), "--json"]
    assert memx(again) == 0
    figures = [
        [(row["metric"], row["value"]) for row in found] for found in (rows, json.loads(capsys.readouterr().out))
    ]
    assert figures[0] == figures[1]


def test_published_benchmarks_are_evaluated_from_files(capsys, tmp_path, host, saved):
    from ...experiments.data.long_context.test_benchmarks import V2, scrolls, write

    row = {"id": 1, "context": "The pass key is 71432. " * 9, "input": "What is it?", "answer": ["71432"]}
    write(tmp_path / "passkey.jsonl", *[row] * 40)
    write(tmp_path / "data.jsonl", *[V2] * 40)
    write(tmp_path / "space_digest.jsonl", *[scrolls("Good. " * n, "", f"{n}%") for n in range(1, 41)])
    tasks = ["infinitebench/passkey", "longbench-v2/easy", "zeroscrolls/space_digest"]
    given = [COMMAND, str(saved), "--model", str(host), *(part for task in tasks for part in ("--task", task))]
    given += ["--set", f"source={tmp_path}", "--budget", "0.5", "--policy", "knorm", "--runs", str(tmp_path / "runs")]
    given += [*SMALL, "--set", "answer_tokens=3"]
    assert memx([*given, "--generate", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {f"held-out/{task}" for task in tasks} <= {row["dataset"] for row in rows}
    assert {row["metric"] for row in rows} >= {"score", "relative_log_likelihood"}
    given[given.index("--prompts") + 1] = "99"
    assert "has only" in mistake(capsys, *given)


def test_a_run_of_an_evolution_online(capsys, tmp_path, host):
    path, runs = tmp_path / "evolve.yaml", tmp_path / "runs"
    given = settings(host, evolution__generations=1, tasks__test_prompts=0, namm__rule="threshold")
    path.write_text(to_yaml(load_evolution_config("namm-smollm2", given)))
    assert memx(["evolve-namm", str(path), "--runs", str(runs)]) == 0
    (evolved,) = runs.iterdir()
    capsys.readouterr()
    arguments = [COMMAND, str(evolved), "--mode", "online", "--task", "prose_next", "--task", "passkey"]
    assert memx([*arguments, "--budget", "0.5", "--policy", "h2o", "--runs", str(runs), *SMALL, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["dataset"] for row in rows} >= {"trained/prose_next", "held-out/passkey", "kinds/code"}
    assert {(row["mode"], row["every"], row["evolved_on"]) for row in rows if row["variant"] == "namm"} == {
        ("online", 64, str(host))
    }
    assert {row["variant"]: row["size"] for row in rows if "namm" in row["variant"]} == {
        "namm": "own", "namm per head": "budget"
    }  # fmt: skip


def test_kvzip_is_no_baseline_of_the_printed_differences(capsys, tmp_path, host):
    saved = tmp_path / "mine"
    namm.save(Namm(torch.randn(4172), rule=Rule(budget=0.4), every=64), saved, host=str(host), tasks=["key_values"])
    given = ["--model", str(host), "--task", "key_values", "--budget", "0.4", "--allocation", "equal"]
    given += ["--policy", "recency", "--policy", "kvzip", "--runs", str(tmp_path / "runs")]
    assert memx([COMMAND, str(saved), *given, *SMALL]) == 0
    printed = capsys.readouterr().out.partition("NAMM minus other policies")[2]
    lines = [line.split() for line in printed.splitlines() if line.split()[:1] == ["namm"]]
    assert [line[3] for line in lines] == ["equal", "kvzip"]
    assert lines[0][-1] == "recency" and lines[1][-1] == "kvzip"


def test_equal_shares_are_named_where_there_are_others_too(capsys, tmp_path, host):
    saved = tmp_path / "mine"
    namm.save(Namm(torch.randn(4172), rule=Rule(budget=0.4), every=64), saved, host=str(host), tasks=["key_values"])
    given = ["--model", str(host), "--task", "key_values", "--budget", "0.4", "--policy", "recency"]
    given += ["--set", "allocations_of={namm: [equal, global], recency: [equal]}", "--runs", str(tmp_path / "runs")]
    assert memx([COMMAND, str(saved), *given, *SMALL]) == 0
    printed = capsys.readouterr().out
    assert {name for name in ("namm equal", "namm global", "recency equal") if name in printed} == {
        "namm equal", "namm global"
    }  # fmt: skip
    assert "relative likelihood: minus" in " ".join(printed.partition("NAMM minus other policies")[2].split())


def test_a_press_that_reads_twice_is_no_best_baseline():
    labels = dict(budget=0.5, size="budget", beside="")
    common = dict(run="r", experiment="r", kind="eviction", model="m", variant="namm", dataset="all/all", n=4)
    rows = [
        Row(**common, metric=f"{metric}_over", value=value, rival=rival, **labels)
        for metric in ("log_likelihood", "exact")
        for rival, value in (("snapkv", 0.5), ("kvpress KVzipPress", 0.1), ("kvpress SnapKVPress", 0.4))
    ]
    best = {way: row.labels.rival for (*_, way), row in _over_baselines(rows).items()}
    assert best == {"equal": "kvpress SnapKVPress", "kvpress KVzipPress": "kvpress KVzipPress"}
