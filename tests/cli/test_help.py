"""Every page of --help: each option is explained in plain, short sentences, and each example is a command of memx."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator

import pytest
import typer
from memx.cli.commands.completion import POLICIES, complete_presets, op_names
from memx.cli.main import app
from memx.experiments.config.presets import all_presets
from memx.kernels.registry import OPS
from memx.namm import POLICIES as KNOWN_POLICIES

LONGEST_HELP, LONGEST_SENTENCE, LONGEST_FIRST = 100, 35, 25  # characters, words, words
WIDTH = 78  # characters that fit in a line of a terminal with 80 columns
BANNED = (
    "if not said", "not said", "goes on", "go on with", "held", "told", "said", "beside", "anew", "in vain",
    "that there is", "so many", "of its own", "is none", "rival", "rivals", "may be repeated", "host", "peers of",
)  # fmt: skip
PANELS = {
    "Memory layers": ["train", "prepare", "convert"],
    "NAMM and eviction": ["evolve-namm", "evict", "eval-namm"],
    "Evaluate and compare": ["ask", "chat", "eval", "bench", "plot", "runs", "show", "compare", "report"],
    "Utilities": ["presets", "policies", "config", "doctor"],
}
ROOT = typer.main.get_command(app)


def walk(command, path="memx") -> Iterator[tuple[str, object]]:
    """Every command with its path, but for hidden ones."""
    yield path, command
    for name, below in getattr(command, "commands", {}).items():
        if not below.hidden:
            yield from walk(below, f"{path} {name}")


PAGES = dict(walk(ROOT))
EVERY = pytest.mark.parametrize("path", PAGES)


def parameters(command) -> list:
    """The parameters that help lists; what typer adds has words of its own."""
    added = ("help", "install_completion", "show_completion")
    return [p for p in command.params if not getattr(p, "hidden", False) and p.name not in added]


def examples(path: str) -> list[str]:
    """The commands after "Examples:", without comments."""
    epilog = PAGES[path].epilog or ""
    lines = [line.strip() for line in epilog.partition("Examples:")[2].splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def texts(path: str) -> list[str]:
    """All that a page says, in parts that end a sentence each."""
    command = PAGES[path]
    comments = [line for line in (command.epilog or "").splitlines() if line.strip().startswith("#")]
    return [*(command.help or "").split("\n\n"), *comments, *(str(p.help) for p in parameters(command))]


@EVERY
def test_every_parameter_has_short_help(path):
    for parameter in parameters(PAGES[path]):
        assert parameter.help, f"{path}: {parameter.name} has no help"
        assert len(parameter.help) <= LONGEST_HELP, f"{path}: {parameter.name}: {len(parameter.help)} characters"
        assert parameter.help[0].isupper() or parameter.help.startswith(("full,", "tiny-llama")), parameter.help
        assert parameter.help.endswith("."), parameter.help


@EVERY
def test_options_that_take_a_value_say_what(path):
    """By a metavar or a list of choices, and with a default where one is computed."""
    for parameter in parameters(PAGES[path]):
        if parameter.param_type_name == "option" and not parameter.is_flag:
            assert parameter.metavar or "|" in parameter.display_type(None), f"{path}: {parameter.name}"


@EVERY
def test_sentences_are_short_and_plain(path):
    for text in texts(path):
        for sentence in re.split(r"(?<=[.;:!?])\s+", text):
            assert len(sentence.split()) <= LONGEST_SENTENCE, f"{path}: {sentence}"
        for phrase in BANNED:
            found = re.search(rf"(?<![\w/.-]){re.escape(phrase)}(?![\w/-])", text, re.IGNORECASE)
            assert not found, f"{path}: {phrase!r} in {text!r}"


@EVERY
def test_a_page_begins_with_a_sentence_and_ends_in_examples(path):
    first = PAGES[path].help.split("\n\n")[0]
    assert first.endswith(".") and first[0].isupper() and len(first.split()) <= LONGEST_FIRST, first
    assert ". " not in first, f"{path}: the first paragraph is one sentence"
    assert len(examples(path)) >= 3


@EVERY
def test_examples_fit_in_a_line_and_parse(path):
    for example in examples(path):
        assert len(example) <= WIDTH, example
        memx = example.partition("memx ")[2].partition(" && ")[0]
        with ROOT.make_context("memx", shlex.split(memx)) as context:
            below = context
            while hasattr(below.command, "commands"):
                name, command, rest = below.command.resolve_command(below, [*below._protected_args, *below.args])
                below = command.make_context(name, rest, parent=below)


def test_commands_are_in_four_panels():
    found: dict[str, list[str]] = {}
    for name in ROOT.list_commands(None):
        found.setdefault(ROOT.commands[name].rich_help_panel, []).append(name)
    assert found == PANELS and list(found) == list(PANELS)


def test_the_first_page_shows_where_to_begin():
    shown = subprocess.run([sys.executable, "-m", "memx", "--help"], capture_output=True, text=True).stdout
    for part in (
        "--facts my.csv",
        "--init-from smollm2",
        "--budget 0.25",
        "evolve-namm namm-tiny",
        "eval-namm results",
    ):
        assert part in shown.partition("Examples:")[2]
    assert "results/runs" in shown and "--install-completion" in shown


def test_old_spellings_are_in_no_page():
    for path, command in PAGES.items():
        options = {option for parameter in parameters(command) for option in parameter.opts}
        assert not options & {"--every", "--peers", "--write", "--op", "--what"}, path


def test_names_that_shells_complete_are_those_that_exist():
    assert set(POLICIES) == set(KNOWN_POLICIES)
    assert op_names() == sorted(op.name for op in OPS)
    assert [name for name, _ in complete_presets("")] == list(all_presets())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("memx train fa", {"facts", "facts-3seeds"}),
        ("memx plot pa", {"pareto"}),
        ("memx bench e", {"eviction", "evolution"}),
        ("memx evict --policy s", {"streamingllm", "snapkv"}),
        ("memx bench ops emb", {"embedding_bag"}),
    ],
)
def test_completion_imports_no_torch(words, expected):
    code = "import sys, atexit; atexit.register(lambda: print('torch' in sys.modules, file=sys.stderr));"
    code += "from memx.cli.main import run; run([])"
    given = {"_MEMX_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | given)
    assert set(shown.stdout.split()) == expected and shown.stderr.strip() == "False", shown
