"""How an answer is written: greedily, by sampling, or as the likeliest of several by beam search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...errors import MemxError

if TYPE_CHECKING:
    from transformers import GenerationConfig


@dataclass(frozen=True)
class Sampling:
    """How an answer is written.

    Attributes:
        max_tokens: New tokens of an answer, at most.
        temperature: Above 0: tokens are sampled at this temperature; None: greedily.
        top: The number of likeliest answers, found by beam search.
        seed: Random seed of sampling.
    """

    max_tokens: int = 32
    temperature: float | None = None
    top: int = 1
    seed: int = 0

    def check(self) -> None:
        """Check that the settings go together.

        Raises:
            MemxError: They do not.
        """
        if self.temperature is not None and not 0 < self.temperature <= 100:
            raise MemxError(
                f"--temperature {self.temperature:g} is not between 0 and 100",
                hint="use e.g. --temperature 0.7, or leave it out for the greedy answer",
            )
        if self.top > 1 and self.temperature is not None:
            raise MemxError("--top and sampling exclude each other", hint="remove --sample and --temperature")

    def config(self, model: Any, **options: Any) -> GenerationConfig:
        """The settings of transformers' `generate`.

        Args:
            model: The model; its end and padding tokens are used.
            options: Further settings.
        """
        from transformers import GenerationConfig

        own = model.generation_config
        chosen: dict[str, Any] = dict(do_sample=False)
        if self.temperature is not None:
            chosen = dict(do_sample=True, temperature=self.temperature, top_k=0, top_p=1.0)
        if self.top > 1:
            # scores are log-probabilities of whole answers, and not means over their tokens
            chosen |= dict(num_beams=self.top, num_return_sequences=self.top, length_penalty=0.0)
        return GenerationConfig(
            max_new_tokens=self.max_tokens, eos_token_id=own.eos_token_id, pad_token_id=own.pad_token_id,
            repetition_penalty=1.0, no_repeat_ngram_size=0, **chosen, **options,
        )  # fmt: skip
