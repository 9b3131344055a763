"""Published benchmarks from small files in their formats, and from a hub that may be out of reach."""

import json
import sys
from types import ModuleType

import pytest
from memx.errors import MemxError
from memx.experiments.config.eviction.tasks import BENCHMARKS, INFINITEBENCH, LONGBENCH_V2, ZEROSCROLLS
from memx.experiments.data.long_context.benchmarks import (
    RULER_TASKS,
    infinitebench,
    longbench,
    longbench_v2,
    ruler,
    zeroscrolls,
)
from memx.experiments.data.long_context.rows import task_table
from memx.experiments.eviction.score import score
from memx.experiments.metrics.registry import METRICS

QASPER = {"input": "Which set?", "context": "An article {with} braces. ", "answers": ["SQuAD", "the SQuAD set"],
          "length": 4, "dataset": "qasper", "language": "en", "all_classes": None, "_id": "1"}  # fmt: skip


V2 = {"_id": "1", "domain": "Single-Document QA", "sub_domain": "Legal", "difficulty": "easy", "length": "short",
      "question": "Which one? ", "choice_A": "one", "choice_B": "two", "choice_C": 3, "choice_D": "four", "answer": "C",
      "context": "\nA law {with} braces.\n"}  # fmt: skip


def scrolls(document, query, output, **more):
    """A row of ZeroSCROLLS: an instruction, a document, a query and the header of the answer."""
    before = "Read this.\n\nReviews:\n"
    text = f"{before}{document}\n\n{query}Answer:\n"
    start, end = len(before), len(before) + len(document)
    places = {"document_start_index": start, "document_end_index": end, "query_start_index": end + 2}
    return {"id": "1", "pid": "1_0", "input": text, "output": output, **places,
            "query_end_index": end + 2 + len(query), "truncation_seperator": "...", **more}  # fmt: skip


def write(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n", encoding="utf-8")
    return str(path)


def hub(monkeypatch, answer):
    """A stand-in for `datasets`; returns the calls that it gets."""
    calls = []

    def load_dataset(*args, **kwargs):
        calls.append((args, kwargs))
        if isinstance(answer, Exception):
            raise answer
        return answer

    module = ModuleType("datasets")
    module.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", module)
    return calls


def test_longbench_from_a_file_and_a_folder(tmp_path):
    path = write(tmp_path / "data" / "qasper.jsonl", QASPER, {**QASPER, "input": "And {x}?"})
    first, second = longbench("qasper", path)
    assert longbench("qasper", str(tmp_path), limit=1) == [first]
    (tmp_path / "rows.json").write_text(json.dumps([QASPER, {**QASPER, "input": "And {x}?"}]))
    assert longbench("qasper", str(tmp_path / "rows.json")) == [first, second]
    assert first.context.startswith("You are given a scientific article") and first.context.endswith("with} braces.")
    assert first.question.startswith(" \n\n Answer the question based") and first.question.endswith(
        "Which set?\n\nAnswer:"
    )
    assert "And {x}?" in second.question
    assert first.answers == ("SQuAD", "the SQuAD set") and first.target == " SQuAD"
    assert (first.task, first.metric, first.max_new_tokens) == ("longbench/qasper", "qa_f1_score", 128)
    assert score(first, " SQuAD\nset") == 1


def test_longbench_classes_first_lines_and_the_even_set(tmp_path):
    row = {**QASPER, "answers": ["City"], "all_classes": ["City", "Person"]}
    write(tmp_path / "trec_e.jsonl", row)
    (example,) = longbench("trec_e", str(tmp_path))
    assert example.classes == ("City", "Person")
    assert score(example, "\nCity\nQuestion: Person") == 1
    write(tmp_path / "passage_count.jsonl", {**QASPER, "answers": ["12"]})
    (example,) = longbench("passage_count", str(tmp_path))
    assert example.prompt.endswith("The final answer is: ") and example.target == "12"


def test_every_task_has_a_prompt_a_metric_and_a_length():
    for name, entry in task_table("longbench.yaml").items():
        assert entry["prompt"].count("{context}") == 1 and entry["metric"] in METRICS, name
    assert len(task_table("longbench.yaml")) == 21
    for name, entry in task_table("infinitebench.yaml").items():
        assert entry["prompt"].count("{context}") == 1 and f"{name}_score" in METRICS, name
        assert entry["max_new_tokens"] > 0
    assert tuple(task_table("infinitebench.yaml")) == BENCHMARKS[INFINITEBENCH]
    entry = task_table("longbench_v2.yaml")
    assert entry["metric"] in METRICS and tuple(entry["tasks"]) == BENCHMARKS[LONGBENCH_V2]
    for name, entry in task_table("zeroscrolls.yaml").items():
        assert entry["metric"] in METRICS and entry["max_new_tokens"] > 0, name
    assert sorted(task_table("zeroscrolls.yaml")) == sorted(BENCHMARKS[ZEROSCROLLS])
    assert {name.partition("_")[0] for name in RULER_TASKS} == set(task_table("ruler.yaml"))


def test_infinitebench_from_files(tmp_path):
    base = {"id": 1, "context": "Long text.", "input": "What is the pass key?", "answer": ["71432"], "options": []}
    write(tmp_path / "passkey.jsonl", base)
    (example,) = infinitebench("passkey", str(tmp_path))
    assert example.prompt.endswith("Long text.\n\nWhat is the pass key?\n\nThe pass key is")
    assert example.max_new_tokens == 6 and score(example, " 71432.") == 1
    write(tmp_path / "longbook_choice_eng.jsonl", {**base, "options": ["w", "x", "y", "z"], "answer": ["y"]})
    (example,) = infinitebench("longbook_choice_eng", str(tmp_path))
    assert "A. w\nB. x\nC. y\nD. z\n" in example.question and example.answers == ("C", "y")
    write(tmp_path / "code_run.jsonl", {**base, "input": "Give the value of func_1(-3).", "answer": -4})
    (example,) = infinitebench("code_run", str(tmp_path))
    assert example.question.endswith("The value of func_1(-3) is") and example.answers == ("-4",)
    assert example.context.startswith("There is a function called func_1 ")
    write(tmp_path / "math_calc.jsonl", {**base, "answer": [1, 4, 8]})
    (example,) = infinitebench("math_calc", str(tmp_path))
    assert score(example, " [1, 4, 8]") == 1


def test_longbench_v2_from_the_file_of_the_hub(tmp_path):
    hard = {**V2, "difficulty": "hard", "answer": "A", "domain": "Multi-Document QA"}
    (tmp_path / "data.json").write_text(json.dumps([V2, hard]))
    first, second = longbench_v2("all", str(tmp_path))
    (by_domain,) = longbench_v2("multi_document_qa", str(tmp_path))
    assert by_domain.prompt == second.prompt and by_domain.task == "longbench-v2/multi_document_qa"
    assert first.prompt == (
        "Please read the following text and answer the question below.\n\n<text>\nA law {with} braces.\n</text>\n\n"
        "What is the correct answer to this question: Which one?\nChoices:\n(A) one\n(B) two\n(C) 3\n(D) four\n\n"
        'Format your response as follows: "The correct answer is (insert answer here)".'
    )
    assert first.target == "\n\nThe correct answer is (C)" and first.max_new_tokens == 128
    assert score(first, "\n\nThe correct answer is (C).") == 1 and score(second, "The correct answer is (C)") == 0
    assert [one.target[-2] for one in longbench_v2("hard", str(tmp_path))] == ["A"]
    with pytest.raises(MemxError, match="no rows of task long"):
        longbench_v2("long", str(tmp_path))
    with pytest.raises(MemxError, match="the answer 'E' is not one of A, B, C and D"):
        longbench_v2("all", write(tmp_path / "a.jsonl", {**V2, "answer": "E"}))
    with pytest.raises(MemxError, match="line 1: no choice_B"):
        longbench_v2("all", write(tmp_path / "b.jsonl", {**V2, "choice_B": None}))


def test_zeroscrolls_from_the_files_of_its_archives(tmp_path):
    rows = [scrolls("Good. Bad.", "", "50%"), scrolls("Fine.", "", "100%")]
    write(tmp_path / "space_digest" / "validation.jsonl", *rows)
    first, second = zeroscrolls("space_digest", str(tmp_path))
    assert first.prompt == rows[0]["input"] and first.context.endswith("Good. Bad.")
    assert first.question == "\n\nAnswer:\n" and first.target == "50%"
    assert score(first, "It is 60% or so") == pytest.approx(0.5) and score(second, "100%") == 1
    query = [scrolls("A tale.", "Question:\nWho?\n\n", answer, pid=answer) for answer in ("Ann", "Ann Lee")]
    (example,) = zeroscrolls("qasper", write(tmp_path / "q.jsonl", *query))
    assert example.answers == ("Ann", "Ann Lee") and example.question.startswith("\n\nQuestion:\nWho?")
    with pytest.raises(MemxError, match="line 1: no answers") as error:
        zeroscrolls("quality", write(tmp_path / "t.jsonl", scrolls("A.", "", None)))
    assert "split validation" in error.value.hint
    for changed in ({"document_end_index": 10**6}, {"document_start_index": -1}, {"query_start_index": "x"}):
        with pytest.raises(MemxError, match="not places of its input"):
            zeroscrolls("qmsum", write(tmp_path / "i.jsonl", {**scrolls("A.", "", "b"), **changed}))
    with pytest.raises(MemxError, match="ZeroSCROLLS has no task 'qmsun'"):
        zeroscrolls("qmsun", str(tmp_path))


def test_ruler_from_its_own_files_and_split_rows(tmp_path):
    text = (
        "Some special magic numbers are hidden.\nA tale. What a tale.\nWhat are all the special magic numbers for ox?"
    )
    row = {"index": 0, "input": text, "outputs": ["12", "34"], "length": 20, "answer_prefix": " They are"}
    write(tmp_path / "niah_multivalue" / "validation.jsonl", row)
    (example,) = ruler("niah_multivalue", str(tmp_path))
    assert example.context.endswith("What a tale.")
    assert example.question == "\nWhat are all the special magic numbers for ox? They are"
    assert (example.answers, example.max_new_tokens) == (("12", "34"), 128)
    assert score(example, " 12 and 35") == 0.5
    split = {"context": "C.\n", "question": "Q?", "answer_prefix": " A: ", "answer": ["x"], "task": "vt"}
    path = write(tmp_path / "rows.jsonl", split, {**split, "task": "cwe"})
    (example,) = ruler("vt", path)
    assert (example.prompt, example.target) == ("C.\nQ? A: ", "x")


def test_files_that_are_wrong(tmp_path):
    with pytest.raises(MemxError, match="LongBench has no task 'qaspar'") as error:
        longbench("qaspar")
    assert "qasper" in error.value.hint
    with pytest.raises(MemxError, match="has no hotpotqa"):
        longbench("hotpotqa", str(tmp_path))
    with pytest.raises(MemxError, match="line 1: no answers"):
        longbench("qasper", write(tmp_path / "a.jsonl", {"context": "", "input": ""}))
    (tmp_path / "b.jsonl").write_text("{", encoding="utf-8")
    with pytest.raises(MemxError, match="line 1: not JSON"):
        longbench("qasper", str(tmp_path / "b.jsonl"))
    for changed, message in (
        ({"context": None}, "line 2: no context"),
        ({"context": {"a": 1}}, "context is not text: an object is not text"),
        ({"answers": []}, "line 2: no answers"), ({"answers": [None]}, "line 2: no answers"),
        ({"answers": [True]}, "answers is not text: true is not text"),
    ):  # fmt: skip
        with pytest.raises(MemxError, match=message):
            longbench("qasper", write(tmp_path / "e.jsonl", QASPER, {**QASPER, **changed}))
    with pytest.raises(MemxError, match="a row has an empty context"):
        ruler("vt", write(tmp_path / "f.jsonl", {"context": " ", "question": "Q?", "answer": ["x"]}))
    with pytest.raises(MemxError, match="no question that starts with"):
        ruler("vt", write(tmp_path / "c.jsonl", {"input": "x", "outputs": ["y"]}))
    with pytest.raises(MemxError, match="is not an option"):
        row = {"context": "", "input": "", "answer": ["q"], "options": ["a", "b", "c", "d"]}
        infinitebench("code_debug", write(tmp_path / "d.jsonl", row))


@pytest.mark.parametrize("task", ["space_digest", "quality", "book_sum_sort"])
def test_answers_that_cannot_be_scored_are_refused_when_they_are_read(tmp_path, task):
    good = scrolls("A.", "", {"space_digest": "40%", "quality": "(B) b", "book_sum_sort": "2, 1"}[task])
    path = write(tmp_path / "a.jsonl", good, scrolls("B.", "", "forty"))
    with pytest.raises(
        MemxError, match=r"1 bad row \(line 2: the metric \w+ cannot score the answer 'forty'\)"
    ) as error:
        zeroscrolls(task, path)
    assert error.value.hint
    assert len(zeroscrolls(task, write(tmp_path / "b.jsonl", good))) == 1


def test_answers_stand_in_the_column_of_their_benchmark(tmp_path):
    row = {**scrolls("A.", "", "b"), "answer": "b"}
    del row["output"]
    with pytest.raises(MemxError, match="line 1: no answers in the column output") as error:
        zeroscrolls("qmsum", write(tmp_path / "a.jsonl", row))
    assert "split validation" in error.value.hint
    with pytest.raises(MemxError, match="line 1: no answers in the column answers"):
        longbench("qasper", write(tmp_path / "b.jsonl", {**QASPER, "answers": [], "answer": "x"}))
    with pytest.raises(MemxError, match="line 1: no answers in the column answer"):
        longbench_v2("all", write(tmp_path / "c.jsonl", {**V2, "answer": [], "output": "A"}))
    with pytest.raises(MemxError, match="cannot score the answer 'x'"):
        infinitebench("math_calc", write(tmp_path / "d.jsonl", {"context": "c", "input": "", "answer": [1, "x"]}))
    with pytest.raises(MemxError, match="cannot score the answer 'forty'"):
        longbench("passage_retrieval_en", write(tmp_path / "e.jsonl", {**QASPER, "answers": ["forty"]}))


@pytest.mark.parametrize("folder", ["zeroscrolls", "zero_scrolls", "ZeroSCROLLS", "."])
def test_a_task_of_two_benchmarks_is_read_from_its_own_files(tmp_path, folder):
    write(tmp_path / folder / "qasper" / "validation.jsonl", scrolls("A tale.", "Who?", "Ann"))
    write(tmp_path / "qasper.jsonl", QASPER)
    assert zeroscrolls("qasper", str(tmp_path))[0].answers == ("Ann",)
    assert longbench("qasper", str(tmp_path))[0].answers[0] == "SQuAD"
    write(tmp_path / "longbench" / "data" / "qasper.jsonl", {**QASPER, "answers": ["QuAC"]})
    write(tmp_path / "zeroscrolls" / "qasper.jsonl", scrolls("A tale.", "Who?", "Bo"))
    assert longbench("qasper", str(tmp_path))[0].answers == ("QuAC",)
    assert zeroscrolls("qasper", str(tmp_path))[0].answers == ("Bo" if folder == "." else "Ann",)


def test_the_hub(monkeypatch):
    calls = hub(monkeypatch, [QASPER])
    (example,) = longbench("qasper", limit=1)
    assert example.answers[0] == "SQuAD"
    assert calls == [(("json",), {"data_files": "zip://data/qasper.jsonl::hf://datasets/zai-org/LongBench/data.zip",
                                  "split": "train"})]  # fmt: skip
    calls = hub(monkeypatch, [{"context": "C", "question": "Q", "answer": ["x"], "task": "vt"}])
    assert ruler("vt", length=8192)[0].answers == ("x",)
    assert calls[0][1]["name"] == "8192"
    calls = hub(monkeypatch, [V2])
    assert len(longbench_v2("easy")) == 1
    assert calls == [(("THUDM/LongBench-v2",), {"split": "train"})]
    calls = hub(monkeypatch, [scrolls("A.", "", "b")])
    assert zeroscrolls("qmsum")[0].answers == ("b",)
    file = "zip://qmsum/validation.jsonl::hf://datasets/tau/zero_scrolls/qmsum.zip"
    assert calls == [(("json",), {"data_files": file, "split": "train"})]


def test_a_hub_out_of_reach_says_what_to_run(monkeypatch):
    hub(monkeypatch, ConnectionError("no route to the hub"))
    with pytest.raises(MemxError, match="cannot load zai-org/LongBench") as error:
        longbench("qasper")
    assert "hf download zai-org/LongBench data.zip --repo-type dataset" in error.value.hint
    for task, place in ((longbench_v2, "THUDM/LongBench-v2"), (zeroscrolls, "tau/zero_scrolls")):
        with pytest.raises(MemxError, match=f"cannot load {place}") as error:
            task("all" if task is longbench_v2 else "qmsum")
        assert f"hf download {place} --repo-type dataset" in error.value.hint
    hub(monkeypatch, ValueError("this data set is gated"))
    with pytest.raises(MemxError, match="gated") as error:
        infinitebench("passkey")
    assert "hf auth login" in error.value.hint
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MemxError, match="needs the package datasets") as error:
        ruler("vt")
    assert error.value.hint == "pip install 'memx[data]'"
