"""`memx bench`: one subcommand for each thing that is measured; without one, the default set."""

from __future__ import annotations

from typing import NoReturn

import typer

from ....errors import MemxError, closest
from ...output.console import examples
from ...parsing.fallback import FALLBACK, FallbackCommand, FallbackGroup
from ...parsing.spellings import Command
from ..completion import op_names
from .default import OLD_NAMES, default
from .measured import eviction, evolution, model, offload, ops, step
from .saved import compare, kernels, list_benchmarks

_MEASURE, _RESULTS = "Measure", "Results and kernels"
_EXAMPLES = {
    "ops": (
        "memx bench ops",
        "memx bench ops embedding_bag --save results/runs/bench",
        "memx bench ops embedding_bag --against results/runs/bench",
    ),
    "step": (
        "memx bench step",
        "memx bench step --slots 4096 --slots 65536 --threads 1",
        "memx bench step --third-party --save results/runs/bench-step",
    ),
    "offload": (
        "memx bench offload",
        "memx bench offload --slots 65536 --steps 3",
        "memx bench offload --save results/runs/bench-offload",
    ),
    "model": (
        "memx bench model",
        "memx bench model --slots 4096 --steps 3",
        "memx bench model --shapes layers=2,width=128",
        "memx bench model --config kinds --threads 1",
    ),
    "eviction": (
        "memx bench eviction",
        "memx bench eviction decode --policy snapkv --budget 0.25",
        "memx bench eviction generate --model smollm2 --context 1024",
    ),
    "evolution": (
        "memx bench evolution --population 8 --steps 1",
        "memx bench evolution --context 1024 --batch 4",
        "memx bench evolution --model smollm2 --context 1024",
    ),
    "compare": (
        "memx bench compare results/runs/bench-new results/runs/bench",
        "memx bench compare new/rows.jsonl old/rows.jsonl",
        "memx bench compare new old --json",
    ),
    "kernels": ("memx bench kernels", "memx bench kernels --json", "memx bench kernels --save results/runs/kernels"),
    "list": ("memx bench list", "memx bench list --json", "memx bench ops embedding_bag"),
}


class BenchGroup(FallbackGroup):
    """The group of benchmarks."""

    def check_first(self, first: str) -> NoReturn:
        """Raise MemxError with the nearest subcommand or op.

        Args:
            first: An argument that is no subcommand.
        """
        known = {name: name for name, command in self.commands.items() if not command.hidden}
        known |= {op: f"ops {op}" for op in op_names()}
        known |= {old: new for old, new in OLD_NAMES.items() if old not in known}
        known |= {part: f"eviction {part}" for part in ("prefill", "decode", "generate")}
        near = known.get(str(closest(first, known)))
        hint = f"did you mean `memx bench {near}`?" if near else "`memx bench --help` lists the subcommands"
        raise MemxError(f"memx bench: no subcommand {first!r}", hint=hint)


def register(app: typer.Typer) -> None:
    """Add the group to the app.

    Args:
        app: The app of memx.
    """
    group = typer.Typer(
        cls=BenchGroup,
        subcommand_metavar="[SUBCOMMAND] [OPTIONS]",
        help=_HELP,
        epilog=examples(
            "memx bench --save results/runs/bench",
            "memx bench ops embedding_bag --shapes N=2^20,D=512",
            "memx bench eviction --budget 0.5 --budget 0.25",
            "memx bench compare results/runs/bench-new results/runs/bench",
        ),
    )
    for command in (ops, step, offload, model, eviction, evolution):
        name = command.__name__
        group.command(name, cls=Command, rich_help_panel=_MEASURE, epilog=examples(*_EXAMPLES[name]))(command)
    for name, command in {"compare": compare, "kernels": kernels, "list": list_benchmarks}.items():
        group.command(name, cls=Command, rich_help_panel=_RESULTS, epilog=examples(*_EXAMPLES[name]))(command)
    group.command(FALLBACK, cls=FallbackCommand, hidden=True)(default)
    app.add_typer(group, name="bench", rich_help_panel="Evaluate and compare")


_HELP = """Check and time memx's kernels, layers, models and eviction policies.

    Without a subcommand, memx bench measures the default set: every op, step, eviction prefill and decode, and model.
    It then takes --device, --dtype, --threads, --seconds, --steps, --save, --force, --against and --json.
    """
