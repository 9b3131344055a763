"""The policies that commands take: their names -> what each keeps, by its class's own words, and its source."""

from __future__ import annotations

import re
from inspect import getdoc
from typing import Any

from ...namm.plugins import find_class, plugin_names
from ...namm.policies.heuristics import POLICIES
from ...namm.saved.places import shipped_namms

_KVZIP = {
    "name": "kvzip",
    "keeps": "Keeps the tokens that the model attends to most while it repeats the text; memx eval-namm only",
    "source": "arXiv 2505.23416",
    "from": "memx",
}
_NAMM = "Keeps the tokens that a small evolved network scores highest; use it as --namm {}"


def listed_policies() -> list[dict[str, str]]:
    """List every policy by `name`, what it `keeps`, its `source` and the package that it is `from`.

    Returns:
        Those of memx, its NAMMs, then those of installed packages.
    """
    found = [_described(name, kind, "memx") for name, kind in POLICIES.items()]
    found += [_KVZIP]
    found += [{"name": name, "keeps": _NAMM.format(name), "source": "memx", "from": "memx"} for name in shipped_namms()]
    return found + [_described(name, kind := find_class(name), kind.__module__) for name in plugin_names()]


def _described(name: str, kind: Any, origin: str) -> dict[str, str]:
    """A policy by the first sentence of its class's docstring, and the number that its source has on arXiv."""
    text = " ".join((getdoc(kind) or "").split())
    number = re.search(r"arXiv \d{4}\.\d{5}", text)
    first = text.partition(". ")[0].removesuffix(".")
    return {"name": name, "keeps": first, "source": number[0] if number else "", "from": origin}
