"""`memx policies list|check`: the eviction policies that `--policy` takes, and a trial of one's own."""

from __future__ import annotations

from typing import Annotated

import typer

from ..output.console import examples, note, print_json, print_table
from ..parsing.fallback import Group
from ..parsing.spellings import Command
from .options import UTILITIES, option

_EPILOG = examples(
    "memx policies list", "memx policies check my_policy.py:LongValues", "memx policies check snapkv --interval 128"
)
policies = typer.Typer(
    cls=Group,
    help="List the eviction policies, or check one of your own.",
    no_args_is_help=True,
    epilog=_EPILOG,
)
Name = Annotated[
    str, typer.Argument(metavar="FILE.py:CLASS|MODULE:CLASS|NAME", help="The policy, as --policy of other commands.")
]
Interval = Annotated[int, option(min=16, metavar="TOKENS", help="Tokens between evictions, a multiple of 16.")]
Json = Annotated[bool, option("--json", help="Print as JSON on stdout.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the app.

    Args:
        app: The app of memx.
    """
    app.add_typer(policies, name="policies", rich_help_panel=UTILITIES)


@policies.command("list", cls=Command, epilog=_EPILOG)
def list_policies(json: Json = False) -> None:
    """List the policies that --policy takes, with their sources, and the NAMMs that come with memx."""
    from ...experiments.eviction.policy_list import listed_policies

    found = listed_policies()
    if json:
        print_json(found)
        return
    columns = ["name", "keeps", "source", "from"]
    print_table("Eviction policies", columns, [[one[key] for key in columns] for one in found], left=4)
    note("your own: --policy FILE.py:CLASS; check it with memx policies check FILE.py:CLASS")


@policies.command("check", cls=Command, epilog=_EPILOG)
def check(name: Name, interval: Interval = 64, json: Json = False) -> None:
    """Try a policy on a small random model: budget, repeatability, chunks, batches and time.

    Exit code 1 if a check fails.
    """
    from ...experiments.eviction.policy_check import check_own_policy

    checks = check_own_policy(name, every=interval)
    if json:
        print_json([{"check": one.name, "passed": one.passed, "found": one.found} for one in checks])
    else:
        words = {True: "ok", False: "failed", None: ""}
        print_table(f"Policy {name}", ["check", "result", "found"],
                    [[one.name, words[one.passed], one.found] for one in checks], left=3)  # fmt: skip
    if any(one.passed is False for one in checks):
        raise typer.Exit(1)
