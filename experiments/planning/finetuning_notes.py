"""What a dry run says of a finetuning beside its cost: which weights are trained, in which parts, what evicts.

No torch here.
"""

from __future__ import annotations

from ..config.training import TrainConfig


def finetuning_notes(config: TrainConfig) -> list[str]:
    """Lines on a run that starts from a pretrained model.

    Args:
        config: Of the run.

    Returns:
        A line each on the weights, the parts and the policy; nothing for a run that starts from new weights.
    """
    finetune, eviction = config.finetune, config.eviction
    if finetune.source is None:
        return []
    who = f"{config.variant}: " if config.variant else ""
    lines = [f"{who}trains {_trained(config)}"]
    if finetune.parts is not None:
        steps = config.training.steps // finetune.parts
        lines.append(f"facts are learned in {finetune.parts} parts, one after another, of {steps:,} steps each")
    if eviction.active:
        what = f"policy {eviction.policy}" if eviction.namm is None else f"NAMM {eviction.namm}"
        sizes = ", ".join(f"{100 * budget:g}%" for budget in eviction.budgets)
        prompts = eviction.prompts * len(eviction.tasks)
        lines.append(f"{what} evicts; {prompts:,} prompts of at most {eviction.length:,} tokens; cache: {sizes}")
    return lines


def _trained(config: TrainConfig) -> str:
    finetune = config.finetune
    if finetune.train == "lora":
        return f"LoRA of rank {finetune.rank} on {', '.join(finetune.targets)}"
    if finetune.train == "slots":
        score = {"tfidf": "TF-IDF", "kl": "KL"}[finetune.rows_by]
        return f"{finetune.rows:,} value rows in each step, chosen by {score}, with {finetune.slots_optimizer.upper()}"
    return {"memory": "memory layers", "all": "all weights"}[finetune.train]
