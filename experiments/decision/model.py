"""A decision transformer (Chen et al. 2021, arXiv 2106.01345): a causal decoder over return, state and action tokens.

B episodes of T steps; S numbers in a state, A in an action, w numbers in a token. A step is three tokens: the return
that is still to come, the state, and the action. The action is predicted from the state's token. Rotary positions are
the decoder's own; as in the paper, a learned embedding of the step is added to its three tokens.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaModel
from transformers.models.llama.modeling_llama import LlamaPreTrainedModel

from ..config.hosts.decision import DecisionConfig

TOKENS = 3  # of a step
RETURN, STATE, ACTION = range(TOKENS)


class DecisionTransformer(LlamaPreTrainedModel):
    """Maps returns, states and actions so far to the next action.

    Args:
        config: The decoder's.
        state_size: S.
        action_size: A.
        steps: The longest episode, T.

    Attributes:
        decoder: The decoder, to which an eviction policy attaches.
        state_mean, state_deviation: Of states in the episodes to learn from [S].
        return_scale: What returns are divided by.
    """

    state_mean: Tensor
    state_deviation: Tensor
    return_scale: Tensor

    def __init__(self, config: LlamaConfig, state_size: int, action_size: int, steps: int) -> None:
        super().__init__(config)
        width = config.hidden_size
        self.decoder = LlamaModel(config)
        self.decoder.embed_tokens = None  # type: ignore[assignment]
        self.embed_return, self.embed_state = nn.Linear(1, width), nn.Linear(state_size, width)
        self.embed_action, self.embed_step = nn.Linear(action_size, width), nn.Embedding(steps, width)
        nn.init.normal_(self.embed_step.weight, std=0.02)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, action_size)
        self.register_buffer("state_mean", torch.zeros(state_size))
        self.register_buffer("state_deviation", torch.ones(state_size))
        self.register_buffer("return_scale", torch.ones(()))

    def get_decoder(self) -> LlamaModel:
        """The decoder."""
        return self.decoder

    def get_input_embeddings(self) -> Any:
        """None: tokens are vectors."""
        return None

    def forward(self, inputs_embeds: Tensor, **kwargs: Any) -> Any:
        """The decoder's hidden states of tokens [B, N, w] that are embedded already."""
        return self.decoder(inputs_embeds=inputs_embeds, **kwargs)

    def embed(self, kind: int, values: Tensor, steps: Tensor) -> Tensor:
        """Embed tokens of one kind.

        Args:
            kind: `RETURN`, `STATE` or `ACTION`.
            values: Returns [B, T, 1] as they are, states [B, T, S] or actions [B, T, A].
            steps: The number of each step [T].

        Returns:
            The tokens [B, T, w].
        """
        if kind == RETURN:
            made = self.embed_return(values / self.return_scale)
        elif kind == STATE:
            made = self.embed_state((values - self.state_mean) / self.state_deviation)
        else:
            made = self.embed_action(values)
        return self.norm(made + self.embed_step(steps))

    def actions(self, returns: Tensor, states: Tensor, actions: Tensor) -> Tensor:
        """Predict every action of whole episodes.

        Args:
            returns: What was still to come at each step [B, T, 1].
            states: [B, T, S].
            actions: [B, T, A].

        Returns:
            The predicted actions [B, T, A], each from what came before it.
        """
        steps = torch.arange(states.shape[1], device=states.device)
        parts = ((RETURN, returns), (STATE, states), (ACTION, actions))
        tokens = torch.stack([self.embed(kind, values, steps) for kind, values in parts], 2).flatten(1, 2)
        hidden = self.decoder(inputs_embeds=tokens, use_cache=False).last_hidden_state
        return self.act(hidden[:, STATE::TOKENS])

    def act(self, hidden: Tensor) -> Tensor:
        """The action [..., A] of the hidden states of states' tokens [..., w]."""
        return self.head(hidden).tanh()


def build_model(config: DecisionConfig, state_size: int, action_size: int) -> DecisionTransformer:
    """Make a decision transformer with the initial weights of its seed.

    Args:
        config: The training run.
        state_size: Numbers in a state.
        action_size: Numbers in an action.

    Returns:
        The model, on the CPU.
    """
    shape, steps = config.model, config.environment.steps
    decoder = LlamaConfig(
        vocab_size=1,
        hidden_size=shape.width,
        intermediate_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=TOKENS * steps,
        pad_token_id=None,
        bos_token_id=None,
        eos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return DecisionTransformer(decoder, state_size, action_size, steps)
