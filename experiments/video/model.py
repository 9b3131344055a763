"""A new LlavaNextVideo model of a config, its tokenizer, and clips and questions as its input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..config.video import VideoConfig, VideoModelConfig
from .clips import Clip
from .questions import BEFORE, BEGIN, BEHIND, END, IMAGE, PAD, VIDEO, WORDS, Question

if TYPE_CHECKING:
    from transformers import LlavaNextVideoForConditionalGeneration, PreTrainedTokenizerFast

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


def pixel_values(pixels: Tensor) -> Tensor:
    """uint8 pixels -> what the vision tower takes, about -1 to 3 and mostly dark."""
    return pixels.float() / 64 - 1


def context_ids(frames: int, tokens: int) -> list[int]:
    """The tokens of a clip with the words around it; the video's stand for what the vision tower says."""
    words = [BEGIN, *BEFORE, *[VIDEO] * (frames * tokens), *BEHIND]
    return [NUMBERS[word] for word in words]


def question_ids(question: Question) -> tuple[list[int], list[int]]:
    """The tokens of a question, and of its answer with the end behind it."""
    asked = [NUMBERS[word] for word in question.text.split()]
    return asked, [NUMBERS[word] for word in (*question.answer.split(), END)]
