"""RULER's tasks as memx generates them: lengths, wording, how often words occur, and that answers are in the text."""

import re
from collections import Counter

import pytest
from memx.experiments.config.eviction.tasks import RULER_TASKS
from memx.experiments.data.long_context.benchmarks import RULER_TASKS as PUBLISHED
from memx.experiments.data.long_context.families import RULER, examples
from memx.experiments.data.long_context.ruler import GENERATED, room_of
from memx.experiments.eviction.score import score


def words(text):
    return len(text.split())


def made(task, **options):
    return examples(f"ruler/{task}", words, **{"length": 1500, "count": 3, "split": "test", **options})


def test_all_but_the_tasks_of_other_data_sets_are_generated():
    assert tuple(GENERATED) == RULER_TASKS and set(PUBLISHED) - set(GENERATED) == {"qa_1", "qa_2"}
    assert set(RULER) == {f"ruler/{task}" for task in GENERATED}


@pytest.mark.parametrize("task", GENERATED)
def test_examples_are_determined_and_leave_room_for_the_answer(task):
    first = made(task)
    assert first == made(task) and len({example.prompt for example in [*first, *made(task, seed=1)]}) == 6
    for example in first:
        assert 0.9 * 1500 - room_of(task) <= words(example.prompt) <= 1500 - room_of(task)
        assert example.max_new_tokens == room_of(task) and example.stop == ()


@pytest.mark.parametrize("task", GENERATED)
def test_the_answers_are_in_the_text_and_score_by_their_share(task):
    for example in made(task):
        assert all(answer in example.context and answer not in example.question for answer in example.answers)
        assert len(set(example.answers)) == len(example.answers)
        assert example.question.endswith(example.prefix) and example.prefix.strip()
        assert score(example, "It is " + " and ".join(example.answers).upper()) == 1
        assert score(example, example.answers[0]) == pytest.approx(1 / len(example.answers))
        assert score(example, "") == 0


@pytest.mark.parametrize(
    ("task", "needles", "answers"),
    [("niah_single_1", 1, 1), ("niah_single_2", 1, 1), ("niah_single_3", 1, 1), ("niah_multikey_1", 4, 1),
     ("niah_multivalue", 4, 4), ("niah_multiquery", 4, 4)],
)  # fmt: skip
def test_needles_are_as_many_as_published(task, needles, answers):
    for example in made(task):
        found = re.findall(r"One of the special magic (\w+) for (\S+) is: (\S+)\.", example.context)
        assert len(found) == needles and len(example.answers) == answers
        assert {value for _, key, value in found if key in example.question} == set(example.answers)
        for (start, stop), (_, _, value) in zip(example.evidence, found, strict=True):
            assert value in example.context[start:stop]


@pytest.mark.parametrize("task", ["niah_multikey_2", "niah_multikey_3"])
def test_a_text_of_needles_alone_has_the_asked_one_once(task):
    for example in made(task):
        lines = example.context.split("\n")[1:]
        assert all(line.startswith("One of the special magic") for line in lines) and len(lines) > 50
        assert sum(example.answers[0] in line for line in lines) == 1


def test_variables_follow_each_other():
    for example in made("vt"):
        text = example.context.rpartition("Memorize and track")[2]
        (value,) = re.findall(r"assigned the value (\d+) in", example.question)
        (name,) = re.findall(rf"VAR (\w+) = {value}\b", text)
        chain, steps = [name], dict(re.findall(r"VAR (\w+) = VAR (\w+)", text))
        following = {before: after for after, before in steps.items()}
        while chain[-1] in following:
            chain.append(following[chain[-1]])
        assert tuple(chain) == example.answers and len(chain) == 5
        assert "5 variables are assigned the value" in example.context  # one example comes first


@pytest.mark.parametrize(("length", "often"), [(1500, {6, 1}), (5000, {30, 3})])
def test_common_words_are_listed_as_often_as_published(length, often):
    for example in made("cwe", length=length):
        text = example.context.rpartition("Memorize the ones that appear most often.\n")[2]
        counts = Counter(re.findall(r"\d+\. (\S+)", text))
        assert set(counts.values()) == often
        assert {word for word, count in counts.items() if count == max(often)} == set(example.answers)


def test_coded_words_fall_with_their_rank_and_dots_come_first():
    for example in made("fwe"):
        counts = Counter(example.context.rpartition("coded words. ")[2].split())
        ranked = [word for word, _ in counts.most_common(4)]
        assert ranked[0] == "..." and tuple(ranked[1:]) == example.answers
        assert counts[ranked[1]] > counts[ranked[2]] > counts[ranked[3]]
