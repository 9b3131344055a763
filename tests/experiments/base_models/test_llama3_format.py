"""Llama 3 as its makers publish it: a start for training with a memory, a host of a NAMM, and what to do without it."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from huggingface_hub import close_session, constants
from memx import namm
from memx.cli.main import run as memx
from memx.errors import MemxError
from memx.experiments.base_models.load import load_host
from memx.experiments.config.loading import load_config
from memx.experiments.models.pretrained import insert_memory, load_pretrained, with_memory
from memx.memory_layers.config import MemoryConfig
from memx.memory_layers.llama import memory_layers_of
from memx.memory_layers.product_keys import ProductKeys
from memx.namm.policies.base import Rule
from memx.namm.policies.network import Namm
from memx.results.store.runs import Run
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from .llama3 import BEGIN, CONFIG, END, GENERATION, PAD, TURN, write_llama3

NAME = "meta-llama/Llama-3.1-8B"
BESIDE = MemoryConfig(kind="memory+", slots=256, heads=2, top_k=4, insertion="beside", layers=(1,))
SMALL = {
    "data.biographies": 8, "data.sequence": 128, "text.source": None, "memory.layers": [1], "memory.slots": 256,
    "memory.heads": 2, "memory.top_k": 4, "training.steps": 2, "training.batch": 8, "training.threads": 1,
    "evaluation.final_questions": 2, "evaluation.max_answer": 4,
}  # fmt: skip


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return write_llama3(tmp_path_factory.mktemp("hub") / "Llama-3.1-8B")


@torch.no_grad()
def logits(model):
    ids = torch.randint(0, 400, (2, 40), generator=torch.Generator().manual_seed(1))
    return model.eval()(ids).logits


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_all_that_is_published_survives_a_memory(llama, tmp_path, dtype):
    plain = AutoModelForCausalLM.from_pretrained(llama, dtype=dtype)
    host, tokenizer = load_host(str(llama), dtype=dtype)
    assert torch.equal(logits(host), logits(plain)) and host.dtype == dtype
    model = insert_memory(host, BESIDE, seed=0)
    assert torch.equal(logits(model), logits(plain))
    with torch.no_grad():
        memory_layers_of(model)[0].output.weight.normal_()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert again.dtype == dtype and torch.equal(logits(again), logits(model))
    assert not torch.equal(logits(again), logits(plain))
    for one in (model, again):
        rope = one.config.rope_parameters
        assert CONFIG["rope_scaling"].items() <= rope.items() and rope["rope_theta"] == 500000.0
        assert (one.config.bos_token_id, one.config.eos_token_id, one.config.pad_token_id) == (BEGIN, END, None)
        assert one.generation_config.eos_token_id == GENERATION["eos_token_id"] == [END, TURN]
        assert one.generation_config.pad_token_id == PAD
        assert torch.equal(one.model.rotary_emb.inv_freq, plain.model.rotary_emb.inv_freq)
        assert not one.config.tie_word_embeddings and one.config.max_position_embeddings == 131072
    unscaled = 500000.0 ** -(torch.arange(0, 16, 2) / 16)
    assert not torch.allclose(plain.model.rotary_emb.inv_freq, unscaled), "the scaling would not be seen"


def test_the_tokenizer_begins_texts_ends_them_and_pads_on_the_left(llama, tmp_path):
    _, tokenizer = load_host(str(llama))
    tokenizer.save_pretrained(tmp_path)
    for one in (tokenizer, AutoTokenizer.from_pretrained(tmp_path)):
        both = one(["one", "a longer text, in more tokens"], padding=True)["input_ids"]
        assert both[0][0] == PAD and both[0][-1] != PAD and both[1][0] == BEGIN and len(both[0]) == len(both[1])
        assert (one.bos_token_id, one.eos_token_id, one.pad_token_id) == (BEGIN, END, PAD)
        assert one.decode(both[1], skip_special_tokens=True) == "a longer text, in more tokens"


def published(llama):
    """All weights of its files."""
    return {name: tensor for file in llama.glob("*.safetensors") for name, tensor in load_file(file).items()}


def train(llama, runs, *more):
    changes = [f"{key}={json.dumps(value)}" for key, value in SMALL.items()]
    settings = [word for change in (*changes, *more) for word in ("--set", change)]
    return memx(["train", "--init-from", str(llama), "--name", "mine", "--runs", str(runs), "--json", *settings])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_memory_is_trained_beside_what_was_published(llama, tmp_path, capsys, dtype):
    half = ["finetune.dtype=bfloat16", "training.precision=bfloat16"] if dtype == "bfloat16" else []
    assert train(llama, tmp_path, *half) == 0
    rows = json.loads(capsys.readouterr().out)
    (run,) = tmp_path.iterdir()
    assert {row["trained"] for row in rows} == {"memory"}
    wanted = published(llama)
    saved = load_file(run / "checkpoint" / "model.safetensors")
    base = {name.replace(".feed_forward.", "."): tensor for name, tensor in saved.items() if ".memory." not in name}
    assert base.keys() == wanted.keys()
    assert all(torch.equal(base[name], tensor.to(base[name].dtype)) for name, tensor in wanted.items())
    assert {tensor.dtype for tensor in base.values()} == {getattr(torch, dtype)}
    assert {tensor.dtype for name, tensor in saved.items() if ".memory." in name} == {torch.float32}
    trained = AutoModelForCausalLM.from_pretrained(run / "checkpoint")
    assert not torch.equal(logits(trained), logits(AutoModelForCausalLM.from_pretrained(llama, dtype=trained.dtype)))
    assert trained.generation_config.eos_token_id == [END, TURN]
    assert AutoTokenizer.from_pretrained(run / "checkpoint").pad_token_id == PAD


def start(source, **changes):
    settings = {**SMALL, "finetune.source": str(source), "finetune.dtype": "bfloat16"}
    return load_config("retrofit", {**settings, "training.precision": "bfloat16", **changes}.items())


def test_half_the_memory_is_of_what_is_not_trained(llama, tmp_path):
    model = load_pretrained(start(llama), torch.device("cpu")).model
    memory = {id(weight) for one in model.modules() if isinstance(one, ProductKeys) for weight in one.parameters()}
    found = {(weight.requires_grad, id(weight) in memory, weight.dtype) for weight in model.parameters()}
    assert found == {(True, True, torch.float32), (False, False, torch.bfloat16)}
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(llama).save_pretrained(tmp_path)
    # a memory that is there keeps every bit
    again = load_pretrained(start(tmp_path), torch.device("cpu")).model
    wanted = dict(model.named_parameters())
    for name, weight in again.named_parameters():
        assert weight.dtype == wanted[name].dtype and torch.equal(weight, wanted[name])


def test_bfloat16_where_it_would_do_harm(llama):
    with pytest.raises(MemxError, match=r"training\.precision float32 on cpu") as caught:
        load_pretrained(start(llama, **{"training.precision": "float32"}), torch.device("cpu"))
    assert "training.precision=bfloat16" in caught.value.hint
    with pytest.raises(MemxError, match=r"loses small updates with finetune\.train all"):
        start(llama, **{"finetune.train": "all"})


@pytest.fixture(scope="module")
def evolved(llama, tmp_path_factory):
    """The run folder of a NAMM that was evolved on it, from the command line."""
    runs = tmp_path_factory.mktemp("evolved")
    small = ["namm.every=64", "tasks.length=128", "tasks.train=[key_values]", "tasks.pool=1", "tasks.per_generation=1",
             "tasks.validation_prompts=1", "tasks.test_prompts=0", "calibration=1", "host.dtype=bfloat16",
             "fitness.mode=online", "host.threads=1"]  # fmt: skip
    settings = [word for one in small for word in ("--set", one)]
    size = ["--generations", "1", "--population", "4", "--runs", str(runs)]
    assert memx(["evolve-namm", "namm-smollm2", "--model", str(llama), *size, *settings]) == 0
    (run,) = runs.iterdir()
    return run


def test_a_namm_is_evolved_on_it(llama, evolved):
    assert json.loads((evolved / "namm" / "namm.json").read_text())["host"] == str(llama)
    found = {(row.dataset, row.variant, row.metric): row for row in Run(evolved).rows()}
    assert found["validation/all", "answer", "kept"].value > 0
    assert found["validation/all", "full cache", "log_likelihood"].parameters_total == sum(
        tensor.numel() for tensor in published(llama).values()
    )


@pytest.mark.slow
def test_a_namm_evicts_from_it_and_is_evaluated_on_it(llama, evolved, tmp_path, capsys):
    text = tmp_path / "long.txt"
    text.write_text("a word and another word. " * 20)
    evict = ["evict", "--file", str(text), "--model", str(llama), "--new-tokens", "2", "--out", str(tmp_path / "out")]
    assert memx([*evict, "--namm", str(evolved / "namm")]) == 0
    small = ["--length", "200", "--prompts", "1", "--threads", "1", "--set", "documents=1", "--set", "resamples=100"]
    given = ["eval-namm", str(evolved / "namm"), "--model", str(llama), "--task", "key_values", *small]
    assert memx([*given, "--runs", str(tmp_path / "evaluated"), "--json"]) == 0
    assert "key_values" in capsys.readouterr().out


class Hub(BaseHTTPRequestHandler):
    """Answers as the hub does to those who may not read a model."""

    answer = (401, "GatedRepo")

    def do_HEAD(self):
        code, error = self.answer
        self.send_response(code)
        self.send_header("X-Error-Code", error)
        self.send_header("X-Error-Message", f"Access to model {NAME} is restricted.")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD

    def log_message(self, *arguments):
        pass


@pytest.fixture
def hub(monkeypatch):
    """A hub on this machine in place of the real one."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.daemon_threads = True
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    threading.Thread(target=server.serve_forever, daemon=True, kwargs={"poll_interval": 0.01}).start()
    yield
    close_session()
    server.shutdown()
    server.server_close()


def refused(command, capsys):
    """What a command that exits 2 says: the error and the hint."""
    assert memx(command) == 2
    told = capsys.readouterr()
    lines = told.err.strip().splitlines()
    error, hint = lines[[line.startswith("error: ") for line in lines].index(True) :]
    assert not told.out and hint.startswith("hint: ")
    return error, hint


@pytest.mark.parametrize("command", [
    ["train", "--init-from", NAME], ["evolve-namm", "--model", NAME], ["evolve-namm", "--model", NAME, "--dry-run"],
    ["evict", "--file", "TEXT", "--model", NAME, "--policy", "recency"],
    ["eval-namm", "SAVED", "--model", NAME],
], ids=lambda command: " ".join([command[0], *command[3:4]]))  # fmt: skip
def test_without_access_the_command_to_run_is_told(command, capsys, tmp_path, monkeypatch, request):
    monkeypatch.chdir(tmp_path)
    Path("long.txt").write_text("a word and another. " * 50)
    namm.save(Namm(rule=Rule(budget=0.4), every=64), tmp_path / "saved", host=NAME, tasks=["key_values"])
    command = [{"TEXT": "long.txt", "SAVED": "saved"}.get(word, word) for word in command]
    before = [path for path in sorted(tmp_path.rglob("*")) if path.is_file()]
    error, hint = refused(command, capsys)  # the tests are offline
    assert "the Hugging Face hub cannot be reached" in error
    assert f"hf download {NAME} --local-dir Llama-3.1-8B --exclude 'original/*'; then use the folder" in hint
    request.getfixturevalue("hub")
    for answer, message, what_to_do in (
        ((401, "GatedRepo"), f"the model {NAME} is gated", f"accept its terms at https://huggingface.co/{NAME}"),
        ((403, "GatedRepo"), f"the model {NAME} is gated", "then run: hf auth login"),
        ((401, "RepoNotFound"), "no such model on the Hugging Face hub", "run: hf auth login"),
    ):
        monkeypatch.setattr(Hub, "answer", answer)
        error, hint = refused(command, capsys)
        assert message in error and what_to_do in hint
    assert [path for path in sorted(tmp_path.rglob("*")) if path.is_file()] == before


def test_a_dry_run_of_the_real_size_needs_its_config_alone(tmp_path, capsys):
    big = dict(hidden_size=4096, intermediate_size=14336, num_attention_heads=32, num_hidden_layers=32)
    full = {**CONFIG, **big, "num_key_value_heads": 8, "vocab_size": 128256}
    (tmp_path / "config.json").write_text(json.dumps(full))
    assert with_memory(AutoConfig.from_pretrained(tmp_path), BESIDE).rope_parameters["factor"] == 8.0
    bytes_of = {}
    for dtype in ("float32", "bfloat16"):
        half = ["--set", f"finetune.dtype={dtype}", "--set", "training.precision=bfloat16"]
        assert memx(["train", "--init-from", str(tmp_path), "--dry-run", "--json", *half]) == 0
        (cost,) = json.loads(capsys.readouterr().out)
        bytes_of[dtype] = cost["weights_bytes"]
    assert bytes_of["float32"] - bytes_of["bfloat16"] == 2 * 8_030_261_248 < bytes_of["bfloat16"]
    assert memx(["evolve-namm", "--model", str(tmp_path), "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["host_parameters"] == 8_030_261_248
