"""Which tokens of an input stand for an image or a video, and which are text, by what the host's config says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import MemxError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_NAMES = {"image": ("image_token_id", "image_token_index"), "video": ("video_token_id", "video_token_index")}


def visual_tokens(model: PreTrainedModel, input_ids: Tensor) -> dict[str, Tensor]:
    """Tell the tokens of images and of video from text.

    Args:
        model: A model whose config names its image or video token, such as Llava, LlavaNextVideo, Qwen-VL or SmolVLM.
        input_ids: Token ids of any shape.

    Returns:
        "image" and "video", as far as the model has them: True where such a token stands, of the shape of input_ids.

    Raises:
        MemxError: The model's config names neither.

    Example:
        ```python
        import torch
        from memx.namm import visual_tokens
        from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

        small = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
        vision, text = CLIPVisionConfig(**small, image_size=16, patch_size=8), LlamaConfig(**small, vocab_size=64)
        model = LlavaForConditionalGeneration(LlavaConfig(vision_config=vision, text_config=text, image_token_index=5))
        print(visual_tokens(model, torch.tensor([[1, 5, 5, 9]]))["image"])  # [[False, True, True, False]]
        ```
    """
    config: Any = model.config
    found = {}
    for kind, names in _NAMES.items():
        number = next((one for name in names if isinstance(one := getattr(config, name, None), int)), None)
        if number is not None:
            found[kind] = torch.eq(input_ids, number)
    if not found:
        raise MemxError(
            f"the config of {type(model).__name__} names no image or video token",
            hint="use a model with images, such as LlavaForConditionalGeneration",
        )
    return found
