"""Clips and questions: frames are what their kinds say, answers are those of frames, and splits share no picture."""

import numpy as np
import pytest
from memx.experiments.config.hosts.video import KINDS, ClipConfig
from memx.experiments.video.clips import CHANGING, FRAME_KINDS, MOVING, OTHER, REPEATED, STATIC, draw_clip
from memx.experiments.video.data import TEXT, asked
from memx.experiments.video.model import NUMBERS, context_ids, make_tokenizer, question_ids
from memx.experiments.video.pictures import OTHERS, digits, drawn_other
from memx.experiments.video.questions import THIRDS, VIDEO, WORDS, all_questions, draw_questions

from .tiny_video import video_config

CONFIG = ClipConfig(frames=48)
CLIPS = [draw_clip(CONFIG, "train", 3, number) for number in range(30)]


def test_a_number_gives_the_same_clip_and_others_give_others():
    again = draw_clip(CONFIG, "train", 3, 7)
    assert np.array_equal(again.pixels, CLIPS[7].pixels) and again.kinds == CLIPS[7].kinds
    for other in (draw_clip(CONFIG, "test", 3, 7), draw_clip(CONFIG, "train", 4, 7), CLIPS[8]):
        assert not np.array_equal(other.pixels, again.pixels)


def test_frames_are_what_their_kinds_say():
    found = set()
    for clip in CLIPS:
        assert clip.pixels.shape == (48, 3, 32, 32) and len(clip.kinds) == len(clip.shown) == 48
        for number, kind in enumerate(clip.kinds):
            same = number > 0 and np.array_equal(clip.pixels[number], clip.pixels[number - 1])
            same_digit = number > 0 and clip.shown[number] == clip.shown[number - 1] >= 0
            found.add(kind)
            assert (kind == OTHER) == (clip.shown[number] == -1)
            if kind == CHANGING:
                assert clip.shown[number] >= 0 and not same_digit
            if kind == REPEATED:
                assert same and same_digit
            if kind in (MOVING, STATIC):
                assert not same and same_digit
    assert found == set(FRAME_KINDS)


def test_frames_in_their_place_differ_by_noise_and_moving_ones_by_more():
    steps = {STATIC: [], MOVING: []}
    for clip in CLIPS:
        for number, kind in enumerate(clip.kinds):
            if kind in steps:
                difference = clip.pixels[number].astype(float) - clip.pixels[number - 1]
                steps[kind].append(np.abs(difference).mean())
    assert max(steps[STATIC]) < min(20, np.mean(steps[MOVING]))


def test_digits_come_in_the_order_that_is_said_each_once():
    for clip in CLIPS:
        seen = [digit for digit in clip.shown if digit >= 0]
        runs = [digit for place, digit in enumerate(seen) if place == 0 or seen[place - 1] != digit]
        assert tuple(runs) == clip.order and len(set(clip.order)) == len(clip.order)
        assert CONFIG.fewest <= len(clip.order) <= CONFIG.most


@pytest.mark.parametrize("frames", [2, 4, 5])
def test_short_clips_have_fewer_digits(frames):
    for number in range(20):
        clip = draw_clip(CONFIG, "train", 0, number, frames)
        assert len(clip.shown) == frames and 1 <= len(clip.order) <= frames // 2


def test_pictures_of_training_and_test_are_disjoint():
    train, test = digits("train"), digits("test")
    for digit in range(10):
        assert not set(train.by_digit[digit]) & set(test.by_digit[digit])
    together = [len(one) for split in (train, test) for one in split.by_digit]
    assert sum(together) == len(train.images) == 1797
    assert min(len(one) for one in test.by_digit) > 40


@pytest.mark.parametrize("kind", OTHERS)
def test_other_pictures_have_the_size_that_is_asked_for(kind):
    rng = np.random.default_rng(0)
    for side in (16, 32, 48):
        picture = drawn_other(rng, kind, "test", side)
        assert picture.shape == (3, side, side) and picture.dtype == np.uint8 and picture.std() > 1


def brute_force(kind, shown, about):
    """The answer read off the digit of each frame."""
    order = list(dict.fromkeys(int(digit) for digit in shown if digit >= 0))
    return {
        "first": lambda: str(order[0]),
        "last": lambda: str(order[-1]),
        "after": lambda: str(order[order.index(about) + 1]),
        "count": lambda: str(len(order)),
        "shown": lambda: "yes" if about in order else "no",
        "when": lambda: THIRDS[min(2, 3 * list(shown).index(about) // len(shown))],
        "list": lambda: " ".join(map(str, order)),
    }[kind]()


def test_answers_are_those_of_the_frames():
    kinds = set()
    for clip in CLIPS:
        for question in all_questions(clip, np.random.default_rng(0)):
            about = next((int(word) for word in question.text.split() if word.isdigit()), None)
            assert question.answer == brute_force(question.kind, clip.shown, about), question
            assert set(question.text.split()) | set(question.answer.split()) <= set(WORDS)
            kinds.add(question.kind)
    assert kinds == set(KINDS)


def test_drawn_questions_differ_and_every_kind_comes_as_often_as_it_can():
    for clip in CLIPS[:10]:
        drawn = draw_questions(clip, np.random.default_rng(1), 7)
        assert {question.kind for question in drawn} == set(KINDS)
        everything = draw_questions(clip, np.random.default_rng(1), 100)
        assert len(set(everything)) == len(everything) == len(all_questions(clip, np.random.default_rng(1)))


def test_units_ask_every_kind_in_turn_as_often_yes_as_no():
    config = video_config()
    units = [asked(config, number) for number in range(28)]
    assert [unit.question.kind for unit in units] == [*KINDS] * 4
    assert [unit.question.answer for unit in units if unit.question.kind == "shown"] == ["yes", "no"] * 2
    assert asked(config, 5).question == units[5].question
    assert len({unit.clip.pixels.tobytes() for unit in units}) == 28


def test_each_token_of_a_unit_is_of_one_kind():
    unit = asked(video_config(), 3)
    ids = np.array(context_ids(16, 4))
    total = sum(mask.astype(int) for mask in unit.kinds.values())
    assert (total == 1).all() and len(ids) == len(total) == 80  # no tokens are left over at the last run
    assert np.array_equal(unit.kinds[TEXT], ids != NUMBERS[VIDEO])
    frames = [kind for kind in unit.clip.kinds for _ in range(4)]
    for kind in FRAME_KINDS:
        assert unit.kinds[kind].sum() == frames.count(kind)


def test_the_tokenizer_writes_the_numbers_of_the_vocabulary():
    tokenizer, question = make_tokenizer(), asked(video_config(), 1).question
    assert tokenizer(question.text)["input_ids"] == question_ids(question)[0]
    assert tokenizer.decode(question_ids(question)[1], skip_special_tokens=True) == question.answer
