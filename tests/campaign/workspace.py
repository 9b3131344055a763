"""The files that fuzzed commands read: valid ones of every kind, and useless ones, made once in a folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

# one layer, a few facts and steps: trained in a fraction of a second
SMALL = """\
name: small
model: {layers: 1, width: 16, heads: 2, context: 64}
memory: {slots: 64, heads: 2, top_k: 4, layers: [0], qk_norm: true}
data: {facts: [small.csv], vocabulary: 300, sequence: 48, unseen: 0.2}
training: {steps: 6, batch: 4, warmup: 1, threads: 1, checkpoint_every: 2, log_every: 1}
evaluation: {every: 3, questions: 2, final_questions: 2, batch: 8, max_answer: 2}
"""
SMALL_NAMM = """\
command: evolve-namm
name: small-namm
host: {name: model, threads: 1}
namm: {scorer: bam, every: 64, rule: budget, budget: 0.4}
tasks: {train: [key_values, prose_next], length: 220, pool: 2, per_generation: 1,
  validation_prompts: 1, test_prompts: 1}
evolution: {population: 4, generations: 2, validate_every: 1}
calibration: 1
""".replace(",\n", ",")  # a line for each section
# files that no command can use as what it reads
USELESS = ("binary.bin", "empty.txt", "damaged.json", "damaged.yaml", "damaged.csv", "damaged.safetensors")


def make(master: Path, tiny_run: Path) -> None:
    """Make the folder. Torch works here: call it in a process that forks nothing afterwards.

    Args:
        master: The folder.
        tiny_run: A finished run of `memx train`.
    """
    from ..docs.workspace import Workspace

    parts = master.with_name("parts")
    shutil.rmtree(parts, ignore_errors=True)
    workspace = Workspace(parts)
    workspace.make(tiny_run)
    master.mkdir(parents=True)
    for path in workspace.files.iterdir():
        if not path.is_symlink():
            path.rename(master / path.name)
    for path in workspace.kinds.iterdir():
        if not (master / path.name).exists():
            path.rename(master / path.name)
    shutil.rmtree(parts)
    (master / "results" / "runs").mkdir(parents=True)
    for name in ("run", "namm", "evaluation"):
        shutil.copytree(master / name, master / "results" / "runs" / f"{name}-0")
    _thin(master)
    _name_relatively(master, str(parts / "kinds") + "/")
    write_small(master)


def write_small(master: Path) -> None:
    """Configs of seconds, and their facts as CSV and as JSON lines."""
    (master / "small.yaml").write_text(SMALL)
    (master / "small-namm.yaml").write_text(SMALL_NAMM)
    rows = "".join(f"s{i},{r},o{i % 5}\n" for i in range(12) for r in ("likes", "owns"))
    (master / "small.csv").write_text("subject,relation,object\n" + rows)
    objects = [dict(zip(("subject", "relation", "object"), row.split(","), strict=True)) for row in rows.split()]
    (master / "small.jsonl").write_text("".join(json.dumps(one) + "\n" for one in objects))
    _write_useless(master)
    _write_odd(master)


def _thin(master: Path) -> None:
    """Rows of reference results are many; a part of them is enough to draw."""
    for path in master.rglob("rows.jsonl"):
        lines = path.read_text("utf-8").splitlines(keepends=True)
        if len(lines) > 2_000:
            path.write_text("".join(lines[:: len(lines) // 1_000]))


def _name_relatively(master: Path, place: str) -> None:
    """Runs that name models in the folder where they were made name those of the folder where commands run."""
    for path in master.rglob("*"):
        if (
            path.suffix in (".json", ".jsonl", ".yaml")
            and path.is_file()
            and place in (text := path.read_text("utf-8"))
        ):
            path.write_text(text.replace(place, ""))


def _write_useless(master: Path) -> None:
    (master / "binary.bin").write_bytes(bytes(range(256)) * 4)
    (master / "empty.txt").write_bytes(b"")
    (master / "damaged.json").write_text('{"a": [1, 2')
    (master / "damaged.yaml").write_text("a: [1\nb: {")
    (master / "damaged.csv").write_text('subject,relation\n"a,b\n')
    (master / "damaged.safetensors").write_bytes(b"\xff" * 8 + b'{"a": 1}')


def _write_odd(master: Path) -> None:
    """Things that are no ordinary file of text."""
    (master / "folder").mkdir()
    (master / "[red]file.txt").write_text("a few words\n")
    (master / "loop").symlink_to("loop")
    (master / "dangling").symlink_to("nothing")
    secret = master / "secret.txt"
    secret.write_text("not for you\n")
    secret.chmod(0)
