"""A new LlavaNextVideo model of a config, its tokenizer, and clips and questions as its input."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from torch import Tensor

from ...errors import MemxError
from ...files import cannot_write, put_in_place
from ...hub import mute_hub
from ..config.hosts.video import VideoConfig
from .questions import BEFORE, BEGIN, BEHIND, END, IMAGE, PAD, VIDEO, WORDS, Question

if TYPE_CHECKING:
    from transformers import LlavaNextVideoForConditionalGeneration, PreTrainedTokenizerFast

CHECKPOINT = "checkpoint"
_AGAIN = "train the run again with --force"
NUMBERS = {word: number for number, word in enumerate(WORDS)}


def frame_tokens(config: VideoConfig) -> int:
    """Tokens of one frame."""
    return (config.clips.size // config.model.patch // config.model.pool) ** 2


def build_model(config: VideoConfig) -> LlavaNextVideoForConditionalGeneration:
    """Make a model with new weights, drawn from torch's own random state."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaNextVideoConfig, LlavaNextVideoForConditionalGeneration

    model, longest = config.model, config.clips.frames * frame_tokens(config) + 256
    vision = CLIPVisionConfig(
        hidden_size=model.vision_width,
        intermediate_size=4 * model.vision_width,
        num_hidden_layers=model.vision_layers,
        num_attention_heads=model.vision_heads,
        image_size=config.clips.size,
        patch_size=model.patch,
        projection_dim=model.vision_width,
    )
    text = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=model.width,
        intermediate_size=model.feed_forward,
        num_hidden_layers=model.layers,
        num_attention_heads=model.heads,
        num_key_value_heads=model.kv_heads,
        max_position_embeddings=longest,
        bos_token_id=NUMBERS[BEGIN],
        eos_token_id=NUMBERS[END],
        pad_token_id=NUMBERS[PAD],
    )
    return LlavaNextVideoForConditionalGeneration(
        LlavaNextVideoConfig(
            vision_config=vision,
            text_config=text,
            image_token_index=NUMBERS[IMAGE],
            video_token_index=NUMBERS[VIDEO],
            vision_feature_layer=-1,
            spatial_pool_stride=model.pool,
            image_grid_pinpoints=[[config.clips.size, config.clips.size]],
        )
    )


def save_model(model: LlavaNextVideoForConditionalGeneration, run: Path) -> None:
    """Write a trained model to `checkpoint/` of a run's folder, whole or not at all, as transformers reads it.

    Raises MemxError if the disk is full or cannot be written.
    """
    target = run / CHECKPOINT
    temporary = run / f".{CHECKPOINT}.tmp"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        with mute_hub():
            model.save_pretrained(temporary)
            make_tokenizer().save_pretrained(temporary)
        put_in_place(temporary, target)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise cannot_write(target, error if isinstance(error, OSError) else OSError(0, str(error))) from None


def load_model(run: Path) -> LlavaNextVideoForConditionalGeneration:
    """Load the model that `save_model` wrote, in eval mode. Raises MemxError if it is damaged."""
    from transformers import LlavaNextVideoForConditionalGeneration

    try:
        with mute_hub():
            loaded: Any = LlavaNextVideoForConditionalGeneration.from_pretrained(
                run / CHECKPOINT, local_files_only=True, dtype="auto", output_loading_info=True
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:150]
        raise MemxError(f"cannot read the model in {run / CHECKPOINT}: {reason}", hint=_AGAIN) from None
    model, found = loaded
    if found["missing_keys"] or found["mismatched_keys"]:
        raise MemxError(f"the model in {run / CHECKPOINT} is damaged: weights are missing", hint=_AGAIN)
    return model.eval()


def make_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer of the vocabulary: one token for each word between blanks."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel(dict(NUMBERS), unk_token=PAD))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token=PAD, bos_token=BEGIN, eos_token=END, additional_special_tokens=[VIDEO, IMAGE]
    )


def pixel_values(pixels: Tensor) -> Tensor:
    """Pixels, uint8 -> what the vision tower takes, from -1 to 3 and mostly dark, float32."""
    return pixels.float() / 64 - 1


def context_ids(frames: int, tokens: int) -> list[int]:
    """The tokens of a clip with the words around it; the video's stand for what the vision tower says."""
    words = [BEGIN, *BEFORE, *[VIDEO] * (frames * tokens), *BEHIND]
    return [NUMBERS[word] for word in words]


def question_ids(question: Question) -> tuple[list[int], list[int]]:
    """The tokens of a question, and of its answer with the end behind it."""
    asked = [NUMBERS[word] for word in question.text.split()]
    return asked, [NUMBERS[word] for word in (*question.answer.split(), END)]
