"""What the printed commands find: files of a person, and small finished runs of every kind, made once."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from pydoc_data.topics import topics

from memx.cli.main import run as memx

from ..experiments.evolution.tiny_evolution import settings, write_host
from ..experiments.qa.taught_model import tqa_entry
from .markdown import ROOT

REFERENCE = ROOT / "results" / "reference"
SHIPPED = ("universal", "smollm2")
LANDS = [
    ("France", "Paris"),
    ("Peru", "Lima"),
    ("Chad", "N'Djamena"),
    ("Fiji", "Suva"),
    ("Oman", "Muscat"),
    ("Mali", "Bamako"),
    ("Cuba", "Havana"),
    ("Togo", "Lome"),
    ("Iran", "Tehran"),
    ("Laos", "Vientiane"),
]


class Workspace:
    """A folder with `files`, which every command finds where it runs, and `kinds`, runs and models by their kind."""

    def __init__(self, root: Path) -> None:
        self.files, self.kinds = root / "files", root / "kinds"

    def make(self, tiny_run: Path) -> None:
        """Write everything; minutes would be too long, so all of it is tiny."""
        self.kinds.mkdir(parents=True)
        self._write_files()
        write_host(self.kinds / "model")
        _write_deep(self.kinds / "model", self.kinds / "deep-model")
        shutil.copytree(tiny_run, self.kinds / "run")
        _write_interrupted(self.kinds / "run", self.kinds / "parallel")
        _write_roomy(self.kinds / "run", self.kinds / "roomy-run")
        for kind, rows in {
            "facts": "facts/memory", "baselines": "rivals/rivals", "ablation": "rivals/ablation",
            "finetune": "retrofit/continual", "continual": "continual/continual", "shares": "shares/shares",
            "kinds": "kinds/kinds", "before-after": "cache-aware/memory",
            "universal": "universal/decision/decision",
        }.items():  # fmt: skip
            _write_run(self.kinds / kind, REFERENCE / f"{rows}.rows.jsonl")
        for kind, rows, which in ("bench", "bench/bench", r"ceilings|embedding_bag "), ("step", "step/step", ""):
            (self.kinds / kind).mkdir()
            lines = (REFERENCE / f"{rows}.rows.jsonl").read_text("utf-8").splitlines(keepends=True)
            kept = [line for line in lines if re.match(which, json.loads(line)["dataset"])]
            (self.kinds / kind / "rows.jsonl").write_text("".join(kept))
        self._make(
            "prepared",
            lambda out: [
                "prepare",
                str(self.files / "my-texts"),
                "--out",
                str(out / "prepared"),
                "--vocabulary",
                "300",
            ],
        )
        shutil.copytree(self.kinds / "prepared", self.files / "prepared")
        questions = [f"--file={name}={self.files / place}" for name, place in (("nq", "nq_open"), ("tqa", "trivia_qa"))]
        self._make(
            "answers",
            lambda out: [
                "eval",
                str(self.kinds / "run"),
                *questions,
                "--limit",
                "2",
                "--answer-tokens",
                "2",
                "--runs",
                str(out),
            ],
        )
        small = settings(self.kinds / "model", evolution__generations=2, tasks__pool=2, namm__rule="threshold")
        given = [f"--set={key}={json.dumps(value)}" for key, value in small]
        self._make("namm", lambda out: ["evolve-namm", "namm-smollm2", *given, "--runs", str(out)])
        for name in SHIPPED:
            shutil.copytree(self.kinds / "namm" / "namm", self.kinds / "shipped" / name)
        _write_evaluation(self.kinds / "evaluation")

    def _make(self, kind: str, arguments: Callable[[Path], list[str]]) -> None:
        """Run a command that writes one folder into a new one, and keep that as the kind."""
        out = self.kinds / f"{kind}.made"
        assert memx(arguments(out)) == 0, kind
        (made,) = out.iterdir()
        made.rename(self.kinds / kind)
        out.rmdir()

    def _write_files(self) -> None:
        texts = [text for _, text in sorted(topics.items())]
        for folder in ("my-texts", "corpus", "notes", "nq_open", "trivia_qa", "my-tasks"):
            (self.files / folder).mkdir(parents=True)
        for number in range(6):
            (self.files / "my-texts" / f"{number}.txt").write_text(texts[number])
            lines = [json.dumps({"text": text, "body": text}) + "\n" for text in texts[8 * number : 8 * number + 8]]
            for folder in ("corpus", "notes"):
                (self.files / folder / f"{number}.jsonl").write_text("".join(lines))
        facts = [f"{land},capital,{town}\n" for land, town in LANDS]
        (self.files / "my.csv").write_text("subject,relation,object\n" + "".join(facts))
        (self.files / "nobel.csv").write_text(
            "Name,Property,Value,Other\n" + "".join(f"{a},capital,{b},\n" for a, b in LANDS)
        )
        (self.files / "towns.csv").write_text("Town,Mayor\n" + "".join(f"{b},Mayor of {a}\n" for a, b in LANDS))
        asked = "".join(f"What is the capital of {a}?,{b}\n" for a, b in LANDS)
        (self.files / "questions.txt").write_text("What is the capital of Peru?\nWhat is the capital of Fiji?\n")
        (self.files / "trivia.csv").write_text("question,answer\n" + asked)
        (self.files / "frage.csv").write_bytes(("Frage;Antwort\n" + asked.replace(",", ";")).encode("latin-1"))
        for name in ("prompt.txt", "long.txt"):
            (self.files / name).write_text(" ".join(texts)[:1200])
        guide = (ROOT / "docs" / "guides" / "own-policies.md").read_text("utf-8")
        (self.files / "my_policy.py").write_text(guide.split("```python\n", 1)[1].split("```", 1)[0])
        self._write_questions()
        assert memx(["config", "copy", "tiny", str(self.files / "my.yaml")]) == 0
        for name in ("constraints.txt", "pyproject.toml"):
            (self.files / name).symlink_to(ROOT / name)

    def _write_questions(self) -> None:
        """NQ-open and TriviaQA as they are published, with enough to draw five examples from."""
        asked = [(f"what is the capital of {land}", [town]) for land, town in LANDS]
        lines = "".join(json.dumps({"question": question, "answer": names}) + "\n" for question, names in asked)
        for name in ("questions.jsonl", "NQ-open.dev.jsonl", "NQ-open.train.jsonl"):
            lines = lines.replace("what is", "which is") if "train" in name else lines
            (self.files / "nq_open" / name).write_text(lines)
            (self.files / name).write_text(lines)
        for name, start in (("dev", "what"), ("train", "which")):
            entries = [tqa_entry(i, q.replace("what", start), [*a, a[0]]) for i, (q, a) in enumerate(asked)]
            path = self.files / "trivia_qa" / f"unfiltered-web-{name}.json"
            path.write_text(json.dumps({"Data": entries, "Domain": "unfiltered-web", "Version": 1.0}))
            shutil.copyfile(path, self.files / path.name)


def _write_evaluation(folder: Path) -> None:
    """The repository's evaluation of one NAMM, as if two budgets of evicted tokens had been looked at too."""
    files = [REFERENCE / "namm-published" / f"{name}.rows.jsonl" for name in ("namm", "layers", "dropped")]
    _write_run(folder, files[0])
    rows = [json.loads(line) for path in files for line in path.read_text("utf-8").splitlines()]
    rows = [row for row in rows if not re.search("7b9876f3|23247734", row["variant"])]  # other seeds
    of_kinds = [row for row in rows if row["dataset"].startswith("kinds/")]
    rows += [{**row, "budget": budget, "size": "budget"} for row in of_kinds for budget in (0.5, 0.25)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _write_deep(model: Path, to: Path) -> None:
    """The model with ten layers, so that memories fit where presets put them."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    config = AutoConfig.from_pretrained(model, num_hidden_layers=10)
    AutoModelForCausalLM.from_config(config).save_pretrained(to)
    AutoTokenizer.from_pretrained(model).save_pretrained(to)


def _write_interrupted(run: Path, to: Path) -> None:
    """A run of two processes that was stopped, as far as `memx convert` of the tests looks at it."""
    shutil.copytree(run, to)
    (to / "state" / "step-20").mkdir(parents=True, exist_ok=True)


def _write_roomy(run: Path, to: Path) -> None:
    """The run with a model that takes longer texts, which changes none of its weights."""
    shutil.copytree(run, to)
    config = json.loads((to / "checkpoint" / "config.json").read_text())
    (to / "checkpoint" / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 1024}))


def _write_run(folder: Path, rows: Path) -> None:
    """A finished run with rows of the repository."""
    folder.mkdir()
    shutil.copyfile(rows, folder / "rows.jsonl")
    experiment = json.loads(rows.read_text("utf-8").splitlines()[0])["experiment"]
    info = {"status": "finished", "experiment": experiment, "started": "2026-01-01T00:00:00+00:00"}
    (folder / "run.json").write_text(json.dumps(info))
