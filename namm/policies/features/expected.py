"""Expected attention: the attention that a key will receive from queries to come, if they are as those so far.

Source: Devoto et al. 2025, "Expected Attention: KV Cache Compression by Estimating Attention from Future Queries
Distribution" (arXiv 2510.00636). Queries before rotary positions are taken as normally distributed, with mean mu and
covariance C of each query head; d numbers a head.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..base import Block, View
from .feature import SINKS, Feature, Summary, first_tokens, visible

FUTURE = 512  # positions of queries to come
SMALL = 1e-9  # added before the logarithm


class Moments(NamedTuple):
    """Queries of each sequence and query head: their number [B, Hq, 1], mean [B, Hq, d], covariance [B, Hq, d, d]."""

    number: Tensor
    mean: Tensor
    covariance: Tensor


def moments_size(width: int) -> int:
    """How many numbers the moments of heads of this width take: count, mean and half of the covariance."""
    return 1 + width + width * (width + 1) // 2


def unpack(summary: Tensor, width: int) -> Moments:
    """The moments of a summary [B, Hq, numbers]."""
    count, mean, half = summary.split([1, width, width * (width + 1) // 2], -1)
    covariance = summary.new_empty(*summary.shape[:2], width, width)
    row, column = torch.tril_indices(width, width, device=summary.device)
    covariance[..., row, column] = half
    covariance[..., column, row] = half
    return Moments(count, mean, covariance)


def update_moments(block: Block, summary: Tensor) -> Tensor:
    """The moments after new queries, of which those of the first four positions do not count: [B, Hq, numbers].

    Merged as in Chan et al. 1979, "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances", so that
    they do not depend on how a text is cut, but for rounding. Divided by the count, not by one less.
    """
    new = block.attention
    width = new.query.shape[3]
    before = unpack(summary, width)
    query = new.rotary.unrotate(new.query, new.own).to(summary.dtype)
    left_out = (new.own[..., :SINKS] < SINKS)[..., None].to(summary.dtype)  # [B, 1, <= 4, 1]: the first queries alone
    count = query.shape[2] - left_out.sum(2)  # [B, 1, 1]
    mean = (query.sum(2) - (query[:, :, :SINKS] * left_out).sum(2)) / count.clamp_min(1)
    centred = query - mean[:, :, None]
    centred[:, :, :SINKS] *= 1 - left_out
    total = before.number + count
    share = count / total.clamp_min(1)  # of the new queries
    step = mean - before.mean
    spread = before.covariance * (1 - share)[..., None] + centred.mT @ centred / total.clamp_min(1)[..., None]
    spread = spread + step[..., :, None] * step[..., None, :] * (share * (1 - share))[..., None]
    row, column = torch.tril_indices(width, width, device=summary.device)
    return torch.cat([total, before.mean + step * share, spread[..., row, column]], -1)


def expected_attention(view: View) -> Tensor:
    """The attention that each key can expect of the next 512 queries, averaged over the group: [B, H, T].

    With R the rotation averaged over the next 512 positions, m = R mu, S = R C R^T and scale s (d^-0.5 as a rule):
    softmax over keys of s k_i.m + s^2 k_i.S k_i / 2, the first four keys left out.
    """
    assert view.summary is not None
    key = view.key.to(view.summary.dtype)
    heads, width, scale = key.shape[1], key.shape[3], view.recent.scale
    moments = unpack(view.summary, width)
    turn = view.rotary.mean_rotation(view.seen, FUTURE).to(key.dtype)[:, None]  # [B, 1, d, d]
    mean = (turn @ moments.mean[..., None]).unflatten(1, (heads, -1))[..., 0]  # [B, H, G, d]
    spread = (turn @ moments.covariance @ turn.mT).unflatten(1, (heads, -1))  # [B, H, G, d, d]
    scores = (mean @ key.mT) * scale  # [B, H, G, T]
    scores += ((key[:, :, None] @ spread) * key[:, :, None]).sum(-1) * (scale**2 / 2)
    counted = visible(view) & ~first_tokens(view)
    scores = scores.masked_fill(~counted[:, :, None], -torch.inf)
    return scores.softmax(-1).nan_to_num(0).mean(2)  # NaN: no key counts


def expected(view: View, state: Tensor) -> Tensor:
    """log(1e-9 + expected attention), see `expected_attention`: [B, H, T, 1]."""
    return (SMALL + expected_attention(view)[..., None]).log()


MOMENTS = Summary(moments_size, update_moments)
FEATURES = (
    Feature(
        "expected",
        1,
        expected,
        "log(1e-9 + attention expected of the next 512 queries)",
        summary=MOMENTS,
        rotary=True,
    ),
)
