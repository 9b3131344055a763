"""The video model: questions of a batch do not see each other, and policies evict from the cache of a clip."""

import numpy as np
import pytest
import torch
from memx import namm
from memx.experiments.video.batches import NONE, make_batch, train_batch
from memx.experiments.video.clips import draw_clip
from memx.experiments.video.model import context_ids, pixel_values, question_ids
from memx.experiments.video.questions import draw_questions
from memx.experiments.video.reading import answers, embed, read, write
from memx.experiments.video.trainee import Trainee
from memx.namm.policies.base import Rule
from memx.namm.policies.heuristics import Full

from .tiny_video import random_host, video_config

UNITS = range(7)


@pytest.fixture(scope="module")
def host():
    return random_host()


@torch.no_grad()
def logits(model, batch):
    return model(
        input_ids=batch.ids,
        pixel_values_videos=pixel_values(batch.pixels).double(),
        attention_mask=batch.mask,
        position_ids=batch.positions,
    ).logits


def test_a_question_of_a_batch_is_read_as_if_it_were_alone(host):
    config = host.config.clips
    clips = [draw_clip(config, "train", 0, number) for number in range(2)]
    drawn = [draw_questions(clip, np.random.default_rng(0), 4) for clip in clips]
    rows = [[question_ids(question) for question in questions] for questions in drawn]
    context = context_ids(16, 4)
    together = make_batch(context, rows, clips)
    got, place = logits(host.model, together), len(context)
    for asked, answer in rows[1]:
        alone = make_batch(context, [[(asked, answer)]], clips[1:])
        text = len(asked) + len(answer) - 1
        wanted = logits(host.model, alone)[0, len(context) :]
        torch.testing.assert_close(got[1, place : place + text], wanted, rtol=1e-9, atol=1e-9)
        assert together.targets[1, place + len(asked) - 1 : place + text].tolist() == answer
        place += text
    assert (together.targets != NONE).sum() == sum(len(answer) for row in rows for _, answer in row)


def test_what_is_trained_is_what_is_asked(host):
    """The log-likelihood of an answer after a cached clip is that of its tokens in a training batch."""
    questions, embedded = host._clips(tuple(UNITS))
    found = answers(host.model, read(host.model, embedded, None), questions)
    for one, answer in zip(questions, found, strict=True):
        text = question_ids(one.question)
        batch = make_batch(context_ids(16, 4), [[text]], [one.clip])
        rows = logits(host.model, batch)[0].log_softmax(-1)
        targets = batch.targets[0]
        there = targets != NONE
        wanted = rows[there].gather(1, targets[there][:, None]).mean()
        assert answer.log_likelihood == pytest.approx(float(wanted), abs=1e-9)
        assert answer.correct == bool((rows[there].argmax(-1) == targets[there]).all())


def test_greedy_writing_agrees_with_what_counts_as_correct(host):
    questions, embedded = host._clips(tuple(UNITS))
    for row, one in enumerate(questions):
        cache = read(host.model, embedded[row : row + 1], None)
        (answer,) = answers(host.model, cache, [one])
        assert answer.correct == (write(host.model, cache, one.question) == one.question.answer)
        assert answers(host.model, cache, [one]) == [answer]  # the cache is as before


@pytest.mark.parametrize("mode", ["post_hoc", "online"])
@pytest.mark.parametrize("policy", [Full(), namm.Namm(rule=Rule(budget=1.0), every=32)], ids=["full", "keep all"])
def test_a_policy_that_keeps_all_answers_as_the_plain_model(mode, policy):
    host = random_host(mode)
    plain, kept = host.measure(None, UNITS), host.measure(policy, UNITS)
    for one, other in zip(plain, kept, strict=True):
        assert one.scores["correct"] == other.scores["correct"]
        assert one.scores["log_likelihood"] == pytest.approx(other.scores["log_likelihood"], abs=1e-10)
        assert one.held == other.held == 1 and one.kv_bytes == other.kv_bytes
        assert one.kinds == other.kinds and list(one.layers) == list(other.layers)


@pytest.mark.parametrize("mode", ["post_hoc", "online"])
def test_an_evicted_cache_holds_its_budget_and_says_of_what(mode):
    host = random_host(mode)
    for allocation in ("equal", "global"):
        policy = namm.make_policy("knorm", budget=0.25, every=32, rule=Rule(allocation=allocation))
        plain, evicted = host.measure(None, UNITS), host.measure(policy, UNITS)
        for full, one in zip(plain, evicted, strict=True):
            # online the last 16 of 80 tokens wait for a run that does not come
            assert one.held == pytest.approx(0.25 if mode == "post_hoc" else (0.25 * 64 + 16) / 80, abs=1e-6)
            assert one.kv_bytes == pytest.approx(one.held * full.kv_bytes)
            kept = sum(count.kept for counts in one.kinds.values() for count in counts)
            seen = sum(count.seen for counts in one.kinds.values() for count in counts)
            assert kept / seen == pytest.approx(one.held, abs=1e-4)
            assert np.mean(one.layers) == pytest.approx(one.held, abs=1e-4)
        assert any(a.scores != b.scores for a, b in zip(plain, evicted, strict=True))


def test_units_are_measured_alike_in_any_batch(host):
    policy = namm.make_policy("tova", budget=0.5, every=32)
    together = host.measure(policy, UNITS)
    alone = [host.measure(policy, [number])[0] for number in UNITS]
    for one, other in zip(together, alone, strict=True):
        assert one.unit == other.unit and one.kinds == other.kinds
        assert one.scores["log_likelihood"] == pytest.approx(other.scores["log_likelihood"], abs=1e-9)


def test_policies_that_share_a_reading_evict_as_if_they_had_read_alone(host):
    names = ("knorm", "h2o", "recency", "tova", "keydiff", "knorm", "h2o")
    policies = [namm.make_policy(name, budget=0.3 + 0.1 * place, every=32) for place, name in enumerate(names)]
    policies.append(namm.Namm(rule=Rule(budget=0.3), every=32))
    shared = random_host()
    for policy in policies:
        for one, other in zip(shared.measure(policy, UNITS), random_host().measure(policy, UNITS), strict=True):
            assert one == other
    assert len(shared._readings) == 4  # knorm, recency and keydiff note nothing


def test_embedding_is_what_the_model_does_itself(host):
    (one,), embedded = host._clips((3,))
    ids = torch.tensor([context_ids(16, 4)])
    pixels = pixel_values(torch.from_numpy(one.clip.pixels)[None]).double()
    with torch.no_grad():
        wanted = host.model(input_ids=ids, pixel_values_videos=pixels).logits
        got = host.model.lm_head(host.model.get_decoder()(inputs_embeds=embedded).last_hidden_state)
    assert torch.equal(got, wanted) and torch.equal(embed(host.model, [one]), embedded)


def test_the_loss_moves_every_weight_and_goes_from_frames_to_clips():
    config = video_config(training__single=0.4, training__short=0.4)
    trainee = Trainee(config)
    assert [trainee.loss(step)[1] for step in (0, 1)] == [config.training.frames] * 2  # one target a frame
    lengths = [train_batch(config, step, frames, 2).pixels.shape[1] for step, frames in ((2, 4), (4, 16))]
    assert lengths == [4, 16]
    loss, count = trainee.loss(4)
    loss.backward()
    assert count == int((train_batch(config, 4, 16, 2).targets != NONE).sum())
    still = [name for name, weight in trainee.named_parameters() if weight.grad is None or not weight.grad.any()]
    # of the tower, what the decoder does not read: the class token's last norm; and what names single frames alone
    assert all("post_layernorm" in name or "image_newline" in name or "naming" in name for name in still), still
