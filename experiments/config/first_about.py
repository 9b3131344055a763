"""The line `about` that a preset had when run folders were first named after it.

The name of a run folder ends with a hash of its config, `about` included. When the line of a preset is reworded, its
first wording stays here, so that runs of earlier versions are found under the same names.
"""

from __future__ import annotations

# the line as it is now -> as it was first
FIRST_ABOUT = {
    "1.3B model with memory+ and 64M slots, 1T tokens of FineWeb-Edu; for 64 GPUs, see docs/guides/scaling.md": "1.3B memory+ with 64M slots on 1T tokens of FineWeb-Edu; for 64 GPUs, see docs/scaling.md",
    "1.3B model of Memory Layers at Scale: dense, memory, memory+ up to 64M slots, PEER and MoE; 10B tokens of text": "the 1.3B base of Memory Layers at Scale, five kinds and memory+ up to 64M slots; 10B tokens of text",
    "134M model of Memory Layers at Scale: dense, memory, memory+, PEER and MoE; 10B tokens of FineWeb-Edu": "the 134M base of Memory Layers at Scale, dense, memory, memory+, PEER and MoE; 10B tokens of FineWeb-Edu",
    "373M model of Memory Layers at Scale: dense, memory, memory+, PEER and MoE; 10B tokens of text": "the 373M base of Memory Layers at Scale, five kinds; 10B tokens of text",
    "720M model of Memory Layers at Scale: dense, memory, memory+, PEER and MoE; 10B tokens of text": "the 720M base of Memory Layers at Scale, five kinds; 10B tokens of text",
    "8B model with memory+ and 16M slots, 1T tokens of FineWeb-Edu; for 64 GPUs, see docs/guides/scaling.md": "8B memory+ with 16M slots on 1T tokens of FineWeb-Edu; for 64 GPUs, see docs/scaling.md",
    "8B model with memory+ and 64M slots, 1T tokens of FineWeb-Edu; for 64 GPUs, see docs/guides/scaling.md": "8B memory+ with 64M slots on 1T tokens of FineWeb-Edu; for 64 GPUs, see docs/scaling.md",
    "8B model of Memory Layers at Scale (Llama 3): dense, memory, memory+, PEER and MoE; 10B tokens of text": "the 8B base of Memory Layers at Scale (Llama 3), dense, memory and memory+ of 16M slots; 10B tokens of text",
    "ablation of placement, gating and qk-norm of the memory layer, one change at a time; 8 blocks, three seeds": "placement, gating and qk-norm of the memory, one change at a time, in a base of 8 blocks; three seeds",
    "new facts for a model that already has a memory (--init-from): memory, rare slots, LoRA or all weights": "other new people for a model that has a memory (--init-from), by memory alone, its rare slots, LoRA or all weights",
    "the demo (facts) with three seeds at every memory size": "the demo with three seeds at every memory size; the first figure of the README",
    "demo on real airports, elements and countries: a dense model against three memory sizes": "the demo; real airports, elements and countries, dense against three memory sizes at one budget",
    "base model of namm-tiny: a small dense model of invented people and Python's documentation; minutes on a CPU": "the host of namm-tiny; a small dense model of invented people and Python's documentation; about a minute",
    "published recipe (Cetin et al. 2024): NAMM for Llama 3 8B on LongBench, three stages; very long, see its --dry-run": "the published recipe (Cetin et al. 2024) on Llama 3 8B and LongBench, in three stages; days on a GPU",
    "NAMM for SmolLM2 that keeps 40% of the cache, evolved on 1,024-token prompts; under 45 minutes": "a NAMM for SmolLM2 that keeps two fifths of the cache, by the likelihood of answers in 1,000 tokens; under 45 minutes",
    "smoke test: a NAMM for a small model that memx trains first; minutes on a laptop": "minutes on a laptop; a NAMM for a model that memx trains first, to see that everything runs",
    "adds memory+ to SmolLM2-135M and trains only the memory on invented people; text loss before and after": "memory+ beside the feed-forwards of SmolLM2-135M, trained alone, learns invented people; text loss before and after",
    "memory, memory+, PEER and MoE at the FLOPs of the dense model, and dense models of 2, 4 and 10 times the FLOPs": "memory, memory+, PEER and MoE at the FLOPs of the dense model, and dense models of 2, 4 and 10 times those",
    "smoke test: invented people, one memory layer; seconds on a laptop, too short to learn much": "seconds on a laptop; invented people, one memory layer; to see that everything runs",
    "memory against dense models of 1, 2 and 4 times the FLOPs, at base widths 32 and 96": "memories against dense models of 1, 2 and 4 times their FLOPs, at base widths below and above that of rivals",
}
