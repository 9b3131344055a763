"""Tiny models of images and video with random weights, and a prompt with pictures for each."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import (
    CLIPVisionConfig,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextVideoConfig,
    LlavaNextVideoForConditionalGeneration,
    PreTrainedModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
)

IMAGE, VIDEO = 5, 6
_VISION = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
_FRAMES = dict(image_size=16, patch_size=4)
_TEXT: dict[str, Any] = dict(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=512,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
)
_AXES = dict(rope_type="default", mrope_section=[1, 1, 2], rope_theta=10000.0)
_QWEN_VISION = dict(num_heads=2, patch_size=4, spatial_merge_size=2, temporal_patch_size=2)
_QWEN_IDS = dict(image_token_id=IMAGE, video_token_id=VIDEO, vision_start_token_id=7, vision_end_token_id=8)


def _llava(vision: CLIPVisionConfig, text: LlamaConfig) -> PreTrainedModel:
    return LlavaForConditionalGeneration(
        LlavaConfig(vision_config=vision, text_config=text, image_token_index=IMAGE, vision_feature_layer=-1)
    )


def _llava_next_video(vision: CLIPVisionConfig, text: LlamaConfig) -> PreTrainedModel:
    ids: Any = dict(image_token_index=IMAGE, video_token_index=VIDEO, image_grid_pinpoints=[[16, 16]])
    return LlavaNextVideoForConditionalGeneration(
        LlavaNextVideoConfig(vision_config=vision, text_config=text, vision_feature_layer=-1, **ids)
    )


def _small(config: Any, model: Any) -> PreTrainedModel:
    vision = _VISION | _FRAMES
    return model(config(vision_config=vision, text_config=LlamaConfig(**_TEXT), image_token_id=IMAGE, scale_factor=2))


def _qwen(config: Any, model: Any, vision: dict[str, Any], **text: Any) -> PreTrainedModel:
    text = _TEXT | dict(rope_parameters=_AXES) | text
    return model(config(vision_config=dict(depth=2, **_QWEN_VISION, **vision), text_config=text, **_QWEN_IDS))


_WIDE = dict(hidden_size=16, intermediate_size=32, out_hidden_size=32)
_MAKERS: dict[str, Any] = {
    "llava": lambda: _llava(CLIPVisionConfig(**_VISION, **_FRAMES), LlamaConfig(**_TEXT)),
    "llava_next_video": lambda: _llava_next_video(CLIPVisionConfig(**_VISION, **_FRAMES), LlamaConfig(**_TEXT)),
    "smolvlm": lambda: _small(SmolVLMConfig, SmolVLMForConditionalGeneration),
    "idefics3": lambda: _small(Idefics3Config, Idefics3ForConditionalGeneration),
    "qwen2_vl": lambda: _qwen(
        Qwen2VLConfig, Qwen2VLForConditionalGeneration, dict(embed_dim=16, hidden_size=32, mlp_ratio=2)
    ),
    "qwen2_5_vl": lambda: _qwen(
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        dict(**_WIDE, window_size=8, fullatt_block_indexes=[1]),
    ),
    "qwen3_vl": lambda: _qwen(
        Qwen3VLConfig,
        Qwen3VLForConditionalGeneration,
        dict(**_WIDE, num_position_embeddings=16, deepstack_visual_indexes=[0, 1]),
        head_dim=8,
    ),
}
NAMES = tuple(_MAKERS)
AXES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")


def visual_host(name: str) -> PreTrainedModel:
    """A model of a kind, in float64 and eval mode, with weights that make its attention differ between tokens."""
    torch.manual_seed(0)
    model = _MAKERS[name]().double().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(0, weight[0].numel() ** -0.5, generator=generator)
    return model


def visual_prompt(name: str, pictures: int = 6) -> dict[str, Tensor]:
    """A prompt with so many pictures between text, as the model's processor would make it; one sequence."""
    torch.manual_seed(1)
    pixels = torch.rand(pictures, 3, 16, 16, dtype=torch.float64)
    if name == "llava_next_video":
        ids = [1, 9, 10, *[VIDEO] * (4 * pictures), 11, *range(20, 31)]
        return {"input_ids": torch.tensor([ids]), "pixel_values_videos": pixels[None]}
    each = {"llava": 16}.get(name, 4)
    ids = [1, 9, 10]
    for picture in range(pictures):
        ids += [7, *[IMAGE] * each, 8, 11 + picture]
    inputs = {"input_ids": torch.tensor([[*ids, *range(20, 31)]])}
    if name == "llava":
        return {**inputs, "pixel_values": pixels}
    if name in AXES:
        flat = torch.rand(pictures * 16, 3 * 2 * 4 * 4, dtype=torch.float64)
        kinds = (inputs["input_ids"] == IMAGE).int()
        grid = torch.tensor([[1, 4, 4]] * pictures)
        return {**inputs, "pixel_values": flat, "image_grid_thw": grid, "mm_token_type_ids": kinds}
    return {**inputs, "pixel_values": pixels[None]}
