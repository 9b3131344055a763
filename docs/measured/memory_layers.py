"""Memory layers against baselines: equal FLOPs, three widths, the ablation, a pretrained model."""

from __future__ import annotations

from collections.abc import Sequence

from memx.results.labels import short
from memx.results.memory_layers.ablation import variants_of
from memx.results.memory_layers.baselines import Base, bases_of
from memx.results.memory_layers.finetuning.continual import EARLIER, KNOWN, LEARNED, by_trained, continual_methods
from memx.results.memory_layers.finetuning.finetune import Method, by_method, methods_of
from memx.results.published import published_ablations
from memx.results.store.rows import Row
from memx.results.summary import Summary, summarize

from .text import interval, plus_minus, rows_of, table

TIER = "rephrased"  # paraphrased questions: what models are compared on
_TIERS = ("seen", TIER, "unseen")
_TRAINED = ("memory", "slots", "lora", "all")


def baselines(page: str) -> str:
    """Fourteen models of one base: exact match in each tier and loss."""
    rows = rows_of("rivals/rivals")
    found = {(s.variant, s.dataset, s.metric): s for s in summarize(rows)}
    (base,) = bases_of(rows, TIER)
    columns = ["model", "parameters", "FLOPs per token", "seen, EM %", "paraphrased, EM %", "held-out, EM %"]
    lines = []
    for variant in (s.variant for s in base.models):
        exact = [found[variant, tier, "exact_match"] for tier in _TIERS]
        line = [variant, short(exact[0].parameters_total or 0, 1000), short(exact[0].flops or 0, 1000)]
        line += [_summary(s, 1) for s in exact]
        lines.append([*line, _summary(found[variant, "seen", "nll"], 2)])
    return table([*columns, "seen, NLL"], lines)


def compute(page: str) -> str:
    """How many times the FLOPs of each model a dense model needs to be as accurate, the most first."""
    (base,) = bases_of(rows_of("rivals/rivals"), TIER)
    models = sorted((s for s in base.models if s.kind != "dense"), key=lambda s: -s.value)
    lines = []
    for s in models:
        times, *ends = (str(base.worth(value, s.flops)) for value in (s.value, s.low, s.high))
        lines.append([s.variant, times, " to ".join(ends)])
    return table(["model", "equal to a dense model of", "range, from the interval of its accuracy"], lines)


def widths(page: str) -> str:
    """Memories against dense models at three base widths."""
    lines = []
    for base in bases_of(rows_of("rivals/widths"), TIER):
        width = base.name.rpartition("x")[2]
        for s in base.models:
            name = s.variant.removesuffix(f" at {width}")
            sizes = [short(s.parameters_total or 0, 1000), short(s.flops or 0, 1000)]
            lines.append([width, name, *sizes, _summary(s, 1), equal_compute(base, s)])
    columns = ["base width", "model", "parameters", "FLOPs per token", "paraphrased, EM %", "equal to dense of"]
    return table(columns, lines, left=2)


def ablation(page: str) -> str:
    """Variants of a memory and their differences to one layer, paired by seed, beside published losses."""
    published = published_ablations()
    columns = ["memory", "paraphrased, EM %", "EM, difference to one layer", "paraphrased, NLL"]
    columns += ["NLL, difference to one layer", "published NLL at 373M: training / NQ / TQA"]
    lines = []
    for variant in variants_of(rows_of("rivals/ablation"), TIER):
        line = [variant.name]
        for metric, digits in (("exact_match", 1), ("nll", 2)):
            difference = variant.differences[metric]
            paired = difference.value is not None and difference.verdict != "first"
            line.append(_summary(variant.summaries[metric], digits))
            line.append(plus_minus(difference.value, difference.low, difference.high, digits, "+") if paired else "")
        losses = published.get(variant.name)
        lines.append([*line, " / ".join(f"{value:.2f}" for value in losses) if losses else ""])
    return table(columns, lines)


def retrofit(page: str) -> str:
    """A memory learns facts in a pretrained model; then four methods learn other facts."""
    columns = ["what is trained", "before, EM % seen / paraphrased", "after, EM % seen", "after, EM % paraphrased"]
    lines = []
    for name, file in (("first facts: ", "retrofit"), ("new facts: ", "continual")):
        rows = rows_of(f"retrofit/{file}")
        trained = {row.variant: _TRAINED.index(row.labels.trained) for row in rows}
        methods = sorted(methods_of(by_method(rows)), key=lambda method: (trained[method.name], method.name))
        lines += [_method(name + method.name, method) for method in methods]
    return table([*columns, "text NLL before", "text NLL after", "change"], lines)


def continual(page: str) -> str:
    """Five methods learn facts in ten parts: learned of each part, and kept of earlier parts and of what was known."""
    columns = ["what is trained", "seeds", "new facts, EM %", "earlier parts, EM %", "known before, still answered, %"]
    lines = []
    for method in continual_methods(by_trained(rows_of("continual/continual"))):
        cells = [plus_minus(*method.figures[key], 1) for key in (LEARNED, EARLIER, KNOWN)]
        lines.append([method.name, str(len(method.seeds)), *cells])
    return table(columns, lines)


def continual_rows(page: str) -> str:
    """How many rows a step trains and by which score: learned and kept, on the validation seed."""
    names = {"kl 500": ("500", "KL"), "kl 2000": ("2,000", "KL"), "slots 1000": ("2,000", "TF-IDF")}
    names |= {"kl 10000": ("10,000", "KL"), "tfidf 10000": ("10,000", "TF-IDF")}
    methods = {m.name: m for m in continual_methods(by_trained(rows_of("continual/validation")))}
    lines = [
        [*shown, *(plus_minus(*methods[name].figures[key], 0) for key in (LEARNED, KNOWN))]
        for name, shown in names.items()
    ]
    columns = ["rows per step", "score", "new facts, EM %", "known before, still answered, %"]
    return table(columns, lines, left=2)


def queries(page: str) -> str:
    """Random against whitened queries of a new memory: slots used by each memory layer, and facts learned."""
    values = {(row.run.partition("-")[0], row.dataset, row.metric): row for row in rows_of("retrofit/queries")}
    layers = sorted({row.labels.memory_layer for row in values.values() if row.metric == "slots_used"})
    lines = []
    for run, name in (("nospread", "random"), ("w16k", "whitened (default)")):
        used = [f"{values[run, f'layer {layer}', 'slots_used'].value:.0f}%" for layer in layers]
        facts = values[run, "seen", "exact_match"]
        lines.append([name, *used, interval(facts.value, facts.low, facts.high, 0)])
    return table(["queries", *(f"slots used, layer {layer}" for layer in layers), "seen, EM % after 60 steps"], lines)


def equal_compute(base: Base, s: Summary) -> str:
    """How many times a model's FLOPs a dense model needs to be as accurate, with the range of the model's interval."""
    if s.kind == "dense":
        return ""
    times, *ends = (str(base.worth(value, s.flops)) for value in (s.value, s.low, s.high))
    return f"{times} ({' to '.join(ends)})"


def model(rows: Sequence[Row], variant: str, metric: str = "exact_match") -> Summary:
    """The mean over seeds of one model, on paraphrased questions."""
    (found,) = (s for s in summarize(rows) if (s.variant, s.dataset, s.metric) == (variant, TIER, metric))
    return found


def _method(name: str, method: Method) -> list[str]:
    before = " / ".join(f"{method.before[tier].value:.1f}" for tier in ("seen", TIER))
    after = [_range(method.after[tier], 1) for tier in ("seen", TIER)]
    text = [_range(s, 2) if s else "" for s in (method.text_before, method.text_after)]
    return [name, before, *after, *text, f"{method.change[0]:+.2f}" if method.change else ""]


def _range(s: Summary, digits: int) -> str:
    return interval(s.value, s.low, s.high, digits)


def _summary(s: Summary, digits: int) -> str:
    return plus_minus(s.value, s.low, s.high, digits)
