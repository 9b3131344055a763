"""Rows and metrics as `memx eval-namm` and `memx evolve-namm` write them, with known values."""

import json
from collections.abc import Sequence
from pathlib import Path

import yaml
from memx.results.store.rows import Row, write_rows

BUDGETS = (0.75, 0.5, 0.25, 0.125)
# how much a policy loses of the full cache's score when nothing is kept
LOSS = {"random": 0.95, "recency": 0.9, "streamingllm": 0.85, "h2o": 0.5, "knorm": 0.7, "tova": 0.45, "snapkv": 0.3}
PRESSES = {"kvpress SnapKVPress": 0.32, "kvpress KnormPress": 0.72}
EXACT = 60.0  # percent, of the full cache
OWN = 34.0  # percent that a NAMM keeps by its threshold
HELD = 6.0  # percent of bytes beyond what is kept, where heads differ


def score(loss: float, kept: float, dataset: str) -> float:
    """Likelihood over the full cache's at a share kept: held-out tasks lose a fifth more."""
    return 1 - (1.2 if dataset.startswith("held-out") else 1.0) * loss * (1 - kept) ** 2


def evaluation(
    policies=tuple(LOSS), budgets=BUDGETS, namms=(("namm", 0, 0.2),), datasets=("held-out/all", "trained/all"),
    own=OWN, presses=(), run="eval-00000001", **changes,
) -> list[Row]:  # fmt: skip
    """Rows of an evaluation: namms are (name, seed, loss); own is what each keeps by its threshold, None: no such.

    With a threshold a NAMM has a line with the same share in every head too, which loses 0.05 more; at its own size its
    heads differ, and it holds more bytes than it keeps tokens.
    """
    common = dict(
        run=run, experiment=run, kind="eviction", model="smollm2", device="cpu", n=96, mode="post_hoc", length=1024,
        every=512, package="memx", split="test",
    ) | changes  # fmt: skip
    rows: list[Row] = []

    def point(variant, dataset, loss, kept, size="own", seed=0, held=None, **more):
        value = score(loss, kept / 100, dataset)
        metrics = {
            "relative_log_likelihood": (value, 0.05), "exact": (EXACT * value, 5.0), "lost_nats": (1 - value, 0.04),
            "log_likelihood": (value - 1.5, 0.04), "kept": (kept, 0.0),
            "held": (kept if held is None else held, 0.0),
        }  # fmt: skip
        about = {**common, "variant": variant, "dataset": dataset, "size": size, "seed": seed, "budget": None, **more}
        for metric, (figure, half) in metrics.items():
            rows.append(Row(**about, metric=metric, value=figure, low=figure - half, high=figure + half))

    for dataset in datasets:
        point("full", dataset, 0.0, 100.0, size="budget")
        losses = {name: LOSS[name] for name in policies} | {name: PRESSES[name] for name in presses}
        entries = [(name, 0, loss, "kvpress" if name in presses else "memx") for name, loss in losses.items()]
        entries += [(*namm, "memx") for namm in namms]
        if own is not None:
            entries += [(f"{name} per head", seed, loss + 0.05, "memx") for name, seed, loss in namms]
        for name, seed, loss, package in entries:
            for budget in budgets:
                at = dict(budget=budget, size="budget", seed=seed, package=package)
                point(name, dataset, loss, 100 * budget - 0.1, **at)
        for name, seed, loss in namms if own is not None else ():
            point(name, dataset, loss, own + seed, seed=seed, held=own + seed + HELD)
            for rival in policies:
                point(rival, dataset, LOSS[rival], own + seed + HELD, beside=name)
    return rows


def over_rival(dataset: str, budget: float | None, value: float, rival: str, **changes) -> Row:
    """The NAMM's paired difference to the best rival."""
    settings = dict(
        run="eval-00000001", experiment="eval-00000001", kind="eviction", model="smollm2", n=96, mode="post_hoc",
        length=1024, every=512, variant="namm", metric="log_likelihood_over_best_rival", low=value - 0.02,
        high=value + 0.03, size="own" if budget is None else "budget", split="test",
    )  # fmt: skip
    return Row(**{**settings, "dataset": dataset, "budget": budget, "value": value, "rival": rival, **changes})


def layer_rows(shares=(90.0, 60.0, 30.0, 20.0), budgets=BUDGETS, policies=("random", "snapkv"), **changes) -> list[Row]:
    """What each layer keeps: at its own size the NAMM as `shares` say, at budgets nearer to them; others all alike."""
    settings = dict(
        run="eval-00000001", experiment="eval-00000001", kind="eviction", model="smollm2", n=96, mode="post_hoc",
        length=1024, every=512, dataset="all/all", metric="kept_layer", device="cpu", split="test",
    )  # fmt: skip
    settings |= changes
    rows = []
    mean = sum(shares) / len(shares)
    for layer, share in enumerate(shares):
        for policy in ("namm", "namm per head", *policies):
            for budget in budgets:
                value = 100 * budget
                if policy == "namm":
                    value += 2 * min(budget, 1 - budget) * (share - mean)
                rows.append(Row(**settings, variant=policy, layer=layer, value=value, budget=budget, size="budget"))
            if policy != "namm per head":
                own = share if policy == "namm" else mean
                rows.append(Row(**settings, variant=policy, layer=layer, value=own, budget=None, size="own"))
    return rows


# kind of token: share of the text, dropped (both in percent)
CODE = {
    "comment": (12.0, 80.0), "docstring": (15.0, 74.0), "keyword": (8.0, 52.0), "name": (25.0, 45.0),
    "number": (3.0, 30.0), "operator": (17.0, 66.0), "whitespace": (20.0, 88.0),
}  # fmt: skip
PROSE = {
    "function word": (38.0, 72.0), "content word": (40.0, 50.0), "number": (2.0, 35.0), "punctuation": (12.0, 81.0),
    "whitespace": (4.0, 77.0), "first word of a sentence": (4.0, 41.0),
}  # fmt: skip


def kind_rows(budget: float | None = None, namms=(("namm", 0, 0.0),), **changes) -> list[Row]:
    """Dropped kinds and lengths of runs; namms are (name, seed, percent dropped beyond the tables above)."""
    settings = dict(
        run="eval-00000001", experiment="eval-00000001", kind="eviction", model="smollm2", n=6, mode="post_hoc",
        length=1024, every=512, device="cpu", budget=budget, size="own" if budget is None else "budget", split="test",
    )  # fmt: skip
    settings |= changes
    rows = []
    for text, kinds in (("code", CODE), ("prose", PROSE)):
        mean = sum(share * dropped for share, dropped in kinds.values()) / 100
        lots = [("random", 0, None, {"beside": name}) for name, *_ in namms]
        lots = lots if budget is None else [("random", 0, None, {})]  # under one budget the lot is the same
        for name, seed, more, beside in [*lots, *((*namm, {}) for namm in namms)]:
            for kind, (share, dropped) in kinds.items():
                value = mean if more is None else dropped + more
                rows.append(
                    Row(**settings, **beside, variant=name, seed=seed, dataset=f"kinds/{text}", metric="dropped",
                        token_kind=kind, share=share, value=value, low=value - 3, high=value + 3)
                )  # fmt: skip
            run = 3.0 if more is None else 5.5 + (text == "code")
            rows.append(
                Row(
                    **settings,
                    **beside,
                    variant=name,
                    seed=seed,
                    dataset=f"kinds/{text}",
                    metric="dropped_run",
                    value=run,
                )
            )
    return rows


def evolution_metrics(generations=(20, 20), every=5, seed=0) -> list[dict]:
    """Lines of metrics.jsonl of a run whose stages have so many generations, validated so often."""
    lines, step, sigma = [], 0, 0.065

    def validate(stage, done, of):
        best = 0.5 + 0.4 * done / of - (0.3 if done == of else 0.0) + 0.01 * seed  # the last but one is the best
        lines.append({"step": step, "stage": stage, "validation": best, "improved": done != of, "kept": 0.4})

    for stage, count in enumerate(generations):
        for done in range(count + 1):
            if done:
                step, sigma = step + 1, sigma * 0.99
                mean = 0.5 + 0.4 * done / count + 0.01 * seed
                lines.append(
                    {"step": step, "stage": stage, "best": mean + 0.2, "mean": mean, "std": 0.1, "sigma": sigma,
                     "kept": 1 - 0.5 * done / count}
                )  # fmt: skip
            if done % every == 0:
                validate(stage, done, count)
    return lines


def evolution_run(folder: Path, lines: list[dict], rows: Sequence[Row] = (), seed=0, started="1", **config) -> Path:
    """A run folder of memx evolve-namm; without rows it is unfinished."""
    folder.mkdir(parents=True)
    settings = {"command": "evolve-namm", "name": folder.name.rpartition("-")[0], "seed": seed, **config}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    info = {"experiment": folder.name, "seed": seed, "started": started, "status": "finished" if rows else "failed"}
    (folder / "run.json").write_text(json.dumps(info))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if rows:
        write_rows(folder / "rows.jsonl", rows)
    return folder


def answer_rows(
    run: str, value: float, kept: float, start=(1.0, 100.0), splits=("test",), tasks=("needles", "quote"), **changes
) -> list[Row]:
    """Rows of a finished evolution: generation 0 (value, kept), its answer, and the full cache."""
    common = dict(run=run, experiment=run, kind="namm", model="smollm2", n=32, device="cpu", mode="post_hoc")
    common |= changes
    rows = []
    for dataset in (f"{split}/{task}" for split in splits for task in ("all", *tasks)):
        split = dataset.partition("/")[0]
        shift = 0.0 if split == "test" else 0.05
        for variant, figure, share in (("generation 0", *start), ("answer", value + shift, kept)):
            for metric, one, half in (("relative_log_likelihood", figure, 0.06), ("kept", share, 1.5)):
                rows.append(
                    Row(**common, dataset=dataset, variant=variant, metric=metric, value=one, low=one - half,
                        high=one + half)
                )  # fmt: skip
        rows.append(Row(**common, dataset=dataset, variant="full cache", metric="log_likelihood", value=-0.6))
    return rows
