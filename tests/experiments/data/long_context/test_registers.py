"""Programs of registers against a run of Python itself, and the score of answers that go wrong somewhere."""

from random import Random

import pytest
from memx.experiments.data.corpus.readers.builtin import BuiltinText
from memx.experiments.data.corpus.readers.document import Share
from memx.experiments.data.long_context.families import examples
from memx.experiments.data.programs import documents, program, run
from memx.experiments.eviction.score import score


def words(text):
    return len(text.split())


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_answer_is_what_python_makes_of_the_steps(split):
    for example in examples("registers", words, length=120, count=5, split=split):
        held: dict[str, int] = {}
        for step, line in zip(example.context.splitlines()[1:], example.answers[0].splitlines(), strict=True):
            exec(step.partition(" ")[2], {}, held)
            number, name, _, source = step.split()
            read = "" if source.isdigit() else f"{source}{held[source]} "
            assert line == f"{number} {read}{name}{held[name]}"
        assert score(example, example.answers[0]) == 1 and score(example, "\n" + example.answers[0] + "\n\nmore") == 1


def test_a_register_is_copied_only_once_it_is_set():
    for seed in range(20):
        steps = program(Random(seed), 30)
        for number, (name, source) in enumerate(steps):
            assert source.isdigit() or source in {one for one, _ in steps[:number]} - {name}
        assert len(run(steps)) == 30


def test_a_score_counts_lines_up_to_the_first_wrong_one():
    (example,) = examples("registers", words, length=100, count=1)
    lines = example.answers[0].splitlines()
    wrong = lines[4][:-1] + str((int(lines[4][-1]) + 1) % 10)
    assert score(example, "\n".join([*lines[:4], wrong, *lines[5:]])) == 4 / len(lines)
    assert score(example, "\n".join(lines[:7])) == 7 / len(lines)
    assert score(example, "") == 0 and score(example, "\n".join(lines[1:])) == 0


def test_documents_to_train_on_are_programs_with_their_answers():
    first, second = documents(2)
    assert first != second and first == documents(1)[0]
    listed, _, answered = first.rstrip().partition("\n\nValues:\n")
    for step, line in zip(listed.splitlines()[1:], answered.splitlines(), strict=True):
        assert line.split()[0] == step.split()[0] and line.split()[-1].startswith(step.split()[1])
    source = BuiltinText("registers")
    assert next(source.read(Share(0, 2, None), 0)).content == first
