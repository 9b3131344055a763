"""`memx evict` on a tiny host: what it prints and writes, and one line and a hint for every mistake."""

import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from pydoc_data.topics import topics
from types import SimpleNamespace

import pytest
import torch
from memx.cli.commands import completion
from memx.cli.main import run as memx
from memx.experiments.base_models import load as host
from memx.experiments.data.tokenizer import train_tokenizer
from memx.experiments.eviction import run as evict
from memx.experiments.eviction.policy import EvictConfig
from memx.experiments.eviction.run import run_eviction
from memx.experiments.eviction.text import tokenize
from memx.namm import HeadTable, Namm, Rule, save, shipped_namms
from memx.namm.policies.heuristics import POLICIES
from memx.results.eviction import files as evict_files
from transformers import GPT2Config, LlamaConfig, LlamaForCausalLM, MambaConfig

from ...namm.saved.shipped import ship, tiny_namm

SIZES = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2)
PROMPT = "".join(topics.values())[:400] + " naïve 漢字 😀 end"
NAMES = ["evict.html", "evict.json", "evict.png"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A folder with a random Llama of 512 positions and a tokenizer that knows no emoji."""
    folder = tmp_path_factory.mktemp("host")
    tokenizer = train_tokenizer(list(topics.values())[:10], 300)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    ends = dict(pad_token_id=0, bos_token_id=None, eos_token_id=1)
    LlamaForCausalLM(LlamaConfig(vocab_size=300, max_position_embeddings=512, **SIZES, **ends)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer(tiny):
    return host.load_host(str(tiny))[1]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """An empty folder to work in."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


@pytest.fixture(autouse=True)
def shipped(tmp_path, monkeypatch):
    """A tiny NAMM in place of the one that evicts by default."""
    return ship(monkeypatch, tmp_path / "shipped", every=512)


@pytest.fixture
def no_picture(monkeypatch):
    """Drawing takes time; one test does it."""
    monkeypatch.setattr(evict_files, "_png", lambda report: b"picture")


@pytest.fixture
def no_weights(monkeypatch):
    """Mistakes that can be known before are told before any weights are read."""
    monkeypatch.setattr(evict, "load_host", lambda *given, **named: pytest.fail("it loaded the host"))


def mistake(capsys, folder, *arguments: str) -> str:
    before = sorted(folder.rglob("*"))
    capsys.readouterr()
    assert memx(["evict", *arguments]) == 2
    captured = capsys.readouterr()
    lines = [line for line in captured.err.strip().splitlines() if not line.startswith(("loading", "prefilling"))]
    assert captured.out == "" and len(lines) == 2, captured
    assert lines[0].startswith("error: ") and lines[1].startswith("hint: ")
    assert sorted(folder.rglob("*")) == before, "nothing is written"
    return "\n".join(lines)


def test_everything_is_told_and_written(capsys, tiny, elsewhere):
    arguments = [PROMPT, "--model", str(tiny), "--interval", "64", "--budget", ".25", "--new-tokens", "6"]
    assert memx(["evict", *arguments, "--compare", "--protect", "4:8"]) == 0
    captured = capsys.readouterr()
    (folder,) = (elsewhere / "results" / "runs").iterdir()
    assert folder.name.startswith("evict-") and sorted(path.name for path in folder.iterdir()) == NAMES
    assert all(str(folder.relative_to(elsewhere) / name) in captured.out for name in NAMES)
    assert "with the full cache" in captured.out and "0 to 2, each" in captured.out and "new tokens" in captured.out
    assert "next:" in captured.err and "warning" not in captured.err
    facts = json.loads((folder / "evict.json").read_text("utf-8"))
    held = torch.tensor(facts["held"])
    assert held.shape == (3, facts["prompt_tokens"]) and (held[:, 4:8] == 1).all()
    last = facts["runs"][-1]
    assert (held[:, last:] == 1).all() and held[:, :last].sum(1).tolist() == [last // 4] * 3
    assert [layer["slots"] for layer in facts["layers"]] == [last // 4 + facts["prompt_tokens"] - last] * 3
    assert "".join(unit["text"] for unit in facts["units"]) == PROMPT
    assert facts["share"] == pytest.approx(facts["layers"][0]["slots"] / facts["prompt_tokens"])


def test_json_is_all_on_stdout(capsys, tiny, no_picture):
    arguments = ["-", "--model", str(tiny), "--interval", "32", "--policy", "h2o", "--new-tokens", "3", "--json"]
    stdin, sys.stdin = sys.stdin, SimpleNamespace(buffer=io.BytesIO(PROMPT.encode()))
    try:
        assert memx(["evict", *arguments, "--out", "here"]) == 0
    finally:
        sys.stdin = stdin
    captured = capsys.readouterr()
    facts = json.loads(captured.out)
    assert captured.err == "" and facts["policy"] == "h2o" and facts["files"][0] == "here/evict.html"
    assert facts["answer"]["tokens"] <= 3 and facts["full"] is None and len(facts["held"]) == 3


def test_a_folder_is_replaced_with_force_alone(capsys, tiny, elsewhere, tmp_path, no_picture):
    (tmp_path / "prompt.txt").write_text(PROMPT, "utf-8")
    arguments = ["--file", str(tmp_path / "prompt.txt"), "--model", str(tiny), "--new-tokens", "2", "--out", "here"]
    assert memx(["evict", *arguments, "--policy", "full"]) == 0
    before = (elsewhere / "here" / "evict.json").read_bytes()
    assert "--force" in mistake(capsys, elsewhere, *arguments)
    assert (elsewhere / "here" / "evict.json").read_bytes() == before
    assert memx(["evict", *arguments, "--interval", "16", "--policy", "recency", "--force"]) == 0
    assert (elsewhere / "here" / "evict.json").read_bytes() != before


def test_a_prompt_that_is_too_short_for_a_run_is_a_warning(capsys, tiny, no_picture):
    for prompt, often in (("Some words, not many.", ""), (PROMPT, ", or --interval 1")):
        assert memx(["evict", prompt, "--model", str(tiny), "--new-tokens", "2"]) == 0
        told = capsys.readouterr().err
        assert "warning:" in told and "no tokens were evicted" in told and f"hint: give a longer prompt{often}" in told
        assert "to see which tokens were evicted" not in told and told.splitlines()[-1].startswith("hint: ")


def test_a_cache_that_stays_above_its_budget_is_a_warning(capsys, tiny, no_picture):
    arguments = [PROMPT, "--model", str(tiny), "--budget", ".25", "--new-tokens", "1"]
    tokens = run_eviction(EvictConfig(PROMPT, host=str(tiny), new_tokens=1)).tokens
    interval = tokens // 32 * 16 + 32  # runs once, and leaves almost half of the prompt
    assert memx(["evict", *arguments, "--interval", str(interval)]) == 0
    (warning,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    waits = f"the last {tokens - interval:,} tokens await the next eviction; use --interval "
    assert "of the cache is kept, more than the budget of 25%: " in warning and waits in warning
    better = warning.rpartition(" ")[2]
    assert tokens % int(better) < 32 and int(better) % 16 == 0 and 32 <= int(better) < interval
    assert memx(["evict", *arguments, "--interval", better]) == 0
    assert "warning" not in capsys.readouterr().err


def test_a_policy_that_evicts_nothing_ends_with_what_to_try(capsys, tiny, no_picture):
    assert memx(["evict", PROMPT, "--model", str(tiny), "--policy", "full", "--new-tokens", "1"]) == 0
    told = capsys.readouterr().err
    assert told.splitlines()[-1] == "the policy full evicts no tokens; next: try another --policy"


def test_a_prompt_that_is_a_file_is_refused(capsys, elsewhere, no_weights):
    (elsewhere / "prompt.txt").write_text("some text")
    told = mistake(capsys, elsewhere, "prompt.txt")
    assert told == "error: prompt.txt is a file\nhint: use --file prompt.txt"


def test_the_full_policy_writes_what_the_full_cache_writes(tiny):
    order = EvictConfig(PROMPT, host=str(tiny), policy="full", new_tokens=12, compare=True)
    report = run_eviction(order)
    assert report.full is not None and report.answer.text == report.full.text
    assert report.answer.agrees == report.answer.tokens and min(map(min, report.held)) == 1
    everything = run_eviction(replace(order, policy="knorm", every=16, budget=1.0))
    assert everything.answer.text == report.full.text and everything.layers[0].slots == report.tokens


def test_a_saved_namm(capsys, tiny, elsewhere, tmp_path):
    namm = tmp_path / "namm"
    save(Namm(rule=Rule(threshold=1.0), every=64), namm)  # all score 0: each run leaves the newest alone
    order = EvictConfig(PROMPT, host=str(tiny), namm=namm, new_tokens=2)
    report = run_eviction(order)
    last = report.runs[-1]
    assert report.every == 64 and sum(report.held[0]) == 1 + report.tokens - last and "threshold 1" in report.rule
    assert min(map(min, run_eviction(replace(order, threshold=0.0)).held)) == 1
    half = run_eviction(replace(order, budget=0.5, every=128))
    assert half.rule == "budget 0.5" and half.runs[0] == 128
    given = ["--namm", str(namm), "--model", str(tiny), "--budget", "0.5", "--grouping", "per_head"]
    assert "--grouping applies only to a threshold" in mistake(capsys, elsewhere, PROMPT, *given)
    description = json.loads((namm / "namm.json").read_text())
    description["constants"]["hop"] = 8
    (namm / "namm.json").write_text(json.dumps(description))
    told = mistake(capsys, elsewhere, PROMPT, "--namm", str(namm), "--model", str(tiny))
    assert "constant 'hop' is 8, this memx uses 16" in told
    (namm / "namm.json").write_text("{")
    assert "cannot load the NAMM" in mistake(capsys, elsewhere, PROMPT, "--namm", str(namm), "--model", str(tiny))


def test_a_namm_for_the_heads_of_another_model_is_told(tiny, tmp_path):
    table = HeadTable(3, 2, bias=True, embedding=0)
    own = Namm(rule=Rule(budget=0.5), every=64, scorer="linear", features=("log_age",), table=table)
    for made_for, told in ((str(tiny), False), ("another/model", True)):
        save(own, tmp_path / "namm", host=made_for)
        notes = []
        run_eviction(EvictConfig(PROMPT, host=str(tiny), namm=tmp_path / "namm", new_tokens=1), notes.append)
        assert told == any("has numbers for the heads of another/model" in note for note in notes)


def test_the_default_is_the_universal_namm_at_half_of_the_cache(tiny, elsewhere, shipped):
    save(tiny_namm(5), elsewhere / "universal")  # no folder of that name is taken for it
    for budget in (0.5, 0.25):
        save(tiny_namm(rule=Rule(budget=budget), every=64), shipped / "universal")
        report = run_eviction(EvictConfig(PROMPT, host=str(tiny), new_tokens=1))
        assert report.policy == "namm" and report.rule == "budget 0.5" and report.every == 64
    named = run_eviction(EvictConfig(PROMPT, host=str(tiny), namm=shipped / "universal", new_tokens=1))
    assert named.rule == "budget 0.25" and named.held != report.held
    half = run_eviction(EvictConfig(PROMPT, host=str(tiny), namm=shipped / "universal", budget=0.5, new_tokens=1))
    assert half.held == report.held
    for settings, rule in ((dict(budget=0.75), "budget 0.75"), (dict(threshold=0.5), "threshold 0.5, layer_max")):
        for policy in (None, "namm"):
            config = EvictConfig(PROMPT, host=str(tiny), policy=policy, new_tokens=1, **settings)
            assert run_eviction(config).rule == rule


def test_a_namm_by_name_or_run(capsys, tiny, elsewhere, tmp_path, monkeypatch, no_picture):
    save(tiny_namm(every=512), tmp_path / "run" / "namm")
    arguments = [PROMPT, "--model", str(tiny), "--new-tokens", "1", "--json"]
    for place in ("universal", str(tmp_path / "run")):
        assert memx(["evict", *arguments, "--namm", place, "--out", f"out/{Path(place).name}"]) == 0
        facts = json.loads(capsys.readouterr().out)
        assert facts["policy"] == "namm" and facts["every"] == 512 and facts["rule"] == "budget 0.5"
    told = mistake(capsys, elsewhere, PROMPT, "--model", str(tiny), "--namm", "univesal")
    assert "'univesal' is not a folder" in told and "did you mean 'universal'?" in told


def test_help_and_completion_name_the_shipped_namms(capsys, tmp_path, monkeypatch):
    assert memx(["evict", "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in shipped_namms())
    for name in ("universal", "smollm2"):
        save(tiny_namm(), tmp_path / "namm" / "shipped" / name)
    monkeypatch.setattr(completion, "_ROOT", tmp_path)
    assert completion.namm_names() == ["smollm2", "universal"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no prompt"),
        (["text", "--file", "some.txt"], "exclude each other"),
        (["--file", "absent.txt"], "cannot read absent.txt"),
        ([" \n"], "the prompt is empty"),
        (["text", "--policy", "snapvk"], "did you mean 'snapkv'?"),
        (["text", "--policy", "h2o", "--namm", "absent"], "cannot be combined"),
        (["text", "--namm", "absent"], "is not a folder"),
        (["text", "--namm", "absent", "--budget", ".5", "--threshold", "0"], "cannot be combined"),
        (["text", "--budget", ".5", "--threshold", "0"], "cannot be combined"),
        (["text", "--namm", "absent", "--threshold", "inf"], "--threshold must be finite, not inf"),
        (["text", "--policy", "h2o", "--threshold", "0"], "--threshold applies only to a NAMM"),
        (["text", "--policy", "h2o", "--grouping", "per_head"], "--grouping applies only to a NAMM"),
        (["text", "--grouping", "heads"], "--grouping"),
        (["text", "--budget", "0"], "budget must be in (0, 1] or a whole number of tokens, got 0"),
        (["text", "--budget", "1.5"], "budget must be in (0, 1] or a whole number of tokens, got 1.5"),
        (["text", "--budget", "nan"], "budget must be in (0, 1] or a whole number of tokens, got nan"),
        (["text", "--policy", "full", "--budget", ".5"], "full keeps every token"),
        (["text", "--policy", "full", "--allocation", "global"], "--allocation has no effect with the policy full"),
        (["text", "--policy", "full", "--shares", "none.json"], "--shares has no effect with the policy full"),
        (["text", "--policy", "full", "--protect-first", "4"], "--protect-first has no effect with the policy full"),
        (["text", "--interval", "40"], "multiple of 16"),
        (["text", "--interval", "0"], "multiple of 16"),
        (["text", "--policy", "snapkv", "--interval", "16"], "snapkv needs an eviction interval of at least 32 tokens"),
        (["text", "--protect", "4-8"], "'4-8' is not a span"),
        (["text", "--new-tokens", "0"], "--new-tokens"),
        (["text", "--device", "tpu"], "--device"),
        (["text", "--out", "in-the-way"], "is not a folder"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_mistakes_are_told_before_the_host_is_loaded(capsys, elsewhere, no_weights, arguments, message):
    (elsewhere / "in-the-way").write_text("")
    assert message in mistake(capsys, elsewhere, *arguments)


def test_text_that_is_not_utf8(capsys, elsewhere):
    (elsewhere / "latin.txt").write_bytes(b"caf\xe9")
    assert "latin.txt is not UTF-8" in mistake(capsys, elsewhere, "--file", "latin.txt")


@pytest.mark.parametrize("span", ["3:3", "-9999:", "0:9999", ":-9999"])
def test_spans_outside_the_prompt(capsys, tiny, elsewhere, span):
    told = mistake(capsys, elsewhere, "a few words", "--model", str(tiny), "--protect", span)
    assert f"--protect {span} is not a valid span of the prompt, which has" in told


def test_open_spans_count_from_either_end(tiny):
    order = EvictConfig(PROMPT, host=str(tiny), every=64, new_tokens=1, protect=(":4", "-8:"))
    report = run_eviction(order)
    assert report.protect == ((0, 4), (report.tokens - 8, report.tokens))


def test_a_prompt_that_does_not_fit(capsys, tiny, elsewhere):
    told = mistake(capsys, elsewhere, "word " * 500, "--model", str(tiny))
    assert "do not fit in the 512 positions of" in told and "--new-tokens" in told


def test_hosts_that_cannot_be_had_or_observed(capsys, tmp_path, elsewhere):
    for name, config, message in (
        ("mamba", MambaConfig(num_hidden_layers=2), "does not use transformers' attention interface"),
        ("gpt2", GPT2Config(n_layer=1), "cannot load"),  # observable, but without weights
    ):
        config.save_pretrained(tmp_path / name)
        train_tokenizer(["some text"], 300).save_pretrained(tmp_path / name)
        assert message in mistake(capsys, elsewhere, "text", "--model", str(tmp_path / name))
    assert "no model or folder 'smollm'" in mistake(capsys, elsewhere, "text", "--model", "smollm")
    told = mistake(capsys, elsewhere, "text", "--model", "some-org/a-model-that-is-not-here")
    assert "cannot be reached" in told and "hf download" in told


def test_a_failure_leaves_nothing(capsys, tiny, elsewhere, monkeypatch):
    def fails(*given, **named):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(evict, "attach", fails)
    assert memx(["evict", "text", "--model", str(tiny)]) == 1
    assert "failed: out of memory" in capsys.readouterr().err and not list(elsewhere.iterdir())


def test_characters_of_several_tokens_are_one_unit(tokenizer):
    ids, units = tokenize(tokenizer, PROMPT)
    assert "".join(unit.text for unit in units) == PROMPT and not any("\ufffd" in unit.text for unit in units)
    assert [unit.start for unit in units[1:]] == [unit.stop for unit in units[:-1]] and units[-1].stop == len(ids)
    (emoji,) = [unit for unit in units if "😀" in unit.text]
    assert emoji.stop - emoji.start == 4

    class Slow:
        """The same tokenizer without offsets."""

        is_fast, all_special_ids, decode = False, tokenizer.all_special_ids, staticmethod(tokenizer.decode)
        bos_token_id = eos_token_id = pad_token_id = unk_token_id = None

        def __call__(self, texts, **options):
            return {"input_ids": [ids for _ in texts]}

    assert tokenize(Slow(), PROMPT) == (ids, units)


def test_help_imports_no_torch():
    code = "import sys; from memx.cli.main import run; run(['evict', '--help']); sys.exit('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0 and "memx evict --file" in result.stdout
    assert all(name in result.stdout for name in (*POLICIES, "universal"))


def test_an_interrupt_that_typer_takes_itself_is_told_too(monkeypatch, capsys):
    from memx.cli import main

    monkeypatch.setattr(main, "command_tree", lambda: lambda **kwargs: 130)
    assert main.run(["evict", "text"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_special_tokens_in_a_prompt_are_text_and_are_told(tiny, tokenizer, tmp_path):
    told = []
    prompt = "a <|end|> b " * 20
    report = run_eviction(EvictConfig(prompt, host=str(tiny), policy="full", new_tokens=1), told.append)
    assert "".join(unit.text for unit in report.units) == prompt and not any(unit.special for unit in report.units)
    assert "special tokens in the prompt are read as ordinary text: <|end|>" in told


def test_a_prompt_that_is_no_unicode_is_refused_at_once(capsys):
    assert memx(["evict", "caf\udcff", "--model", "nowhere"]) == 2
    assert "error: the text contains U+DCFF, which is not a character, after 'caf'" in capsys.readouterr().err
