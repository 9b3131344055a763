"""lm-eval on a taught checkpoint, with tasks of local files, held against a script of its own."""

import json
from importlib.util import find_spec

import pytest
from memx.errors import MemxError
from memx.experiments.qa import run as qa_run
from memx.experiments.qa.eviction import evictions
from memx.experiments.qa.lm_eval_folder import check_folder
from memx.experiments.qa.lm_eval_samples import Samples
from memx.experiments.qa.lm_eval_tasks import harness_rows
from memx.experiments.qa.model import context_of, load_model
from memx.results.store.json_lines import JsonLines
from memx.results.store.runs import RunStore

from .taught_model import ASKED, taught_once
from .unbatched import Script, config_of, evaluated, prompt_of

LOCAL = """
task: {task}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
doc_to_text: "Question: {{{{question}}}}?\\nAnswer:"
"""
WRITTEN = """output_type: generate_until
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 10, do_sample: false}
filter_list: [{name: remove_whitespace, filter: [{function: remove_whitespace}, {function: take_first}]}]
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true, ignore_case: true,
  ignore_punctuation: true}]
"""
CHOSEN = """output_type: multiple_choice
doc_to_target: label
doc_to_choice: "{{choices}}"
metric_list: [{metric: acc}, {metric: acc_norm}]
"""


@pytest.mark.skipif(find_spec("lm_eval") is None, reason="lm-eval is not installed: pip install 'memx[eval]'")
@pytest.mark.filterwarnings("ignore")  # lm-eval and what it brings have their own
def test_lm_eval_runs_on_a_memx_checkpoint(tmp_path_factory, tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    taught, tasks = taught_once(tmp_path_factory.getbasetemp()), tmp_path / "tasks"
    tasks.mkdir()
    script, right, chosen, lines = Script(taught), [], [], []
    for number, (question, said, names) in enumerate(ASKED):
        answer, choices = said or names[0], [said or names[0], "an owl", "Oslo"]
        order = choices[number % 3 :] + choices[: number % 3]
        lines.append({"question": question, "answer": answer, "choices": order, "label": order.index(answer)})
        prompt = prompt_of([], question)
        right.append(script.answer(prompt, 10).strip().lower().strip(".!") == answer.lower().strip(".!"))
        likely = [script.nll(prompt, choice) for choice in order]
        chosen.append(likely.index(min(likely)) == order.index(answer))
    data = tmp_path / "questions.jsonl"
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    for task, rest in (("own_written", WRITTEN), ("own_chosen", CHOSEN)):
        (tasks / f"{task}.yaml").write_text(LOCAL.format(task=task, data=data) + rest)
    config = config_of(taught, harness="own_written,own_chosen", harness_folder=tasks)
    rows, _ = evaluated(config, tmp_path / "runs")
    assert set(rows) == {("own_written", "exact_match"), ("own_chosen", "accuracy"), ("own_chosen", "accuracy_norm")}
    assert 0 < sum(right) < len(right)
    assert rows["own_written", "exact_match"].value == pytest.approx(100 * sum(right) / len(right))
    assert rows["own_chosen", "accuracy"].value == pytest.approx(100 * sum(chosen) / len(chosen))
    row = rows["own_written", "exact_match"]
    assert row.n == len(ASKED) and row.low < row.value < row.high and row.memory_slots == 256
    assert row.model_extra["harness"].startswith("lm-eval 0.")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(qa_run, "run_harness", None)  # a task that is done is not run again
        (RunStore(tmp_path / "runs").run(config.folder).folder / "run.json").write_text('{"status": "interrupted"}')
        assert evaluated(config, tmp_path / "runs", resume=True)[0] == rows


@pytest.mark.skipif(find_spec("lm_eval") is None, reason="lm-eval is not installed: pip install 'memx[eval]'")
@pytest.mark.filterwarnings("ignore")
def test_what_does_not_fit_is_cut_and_counted(tmp_path_factory, tmp_path, monkeypatch, capfd):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)  # no repository of git
    taught, tasks = taught_once(tmp_path_factory.getbasetemp()), tmp_path / "tasks"
    tasks.mkdir()
    texts = ["who sang it", "7 " * 300, "who <|end|> sang it"]
    lines = [{"question": text, "answer": "a", "choices": ["a", "b"], "label": 0} for text in texts]
    data = tmp_path / "questions.jsonl"
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    written = WRITTEN.replace("max_gen_toks: 10, ", "")  # lm-eval's own 256 do not fit in 96
    for task, rest in (("own_written", written), ("own_chosen", CHOSEN)):
        (tasks / f"{task}.yaml").write_text(LOCAL.format(task=task, data=data) + rest)
    rows, _ = evaluated(config_of(taught, harness="own_written,own_chosen", harness_folder=tasks), tmp_path / "runs")
    written, chosen = rows["own_written", "exact_match"].labels, rows["own_chosen", "accuracy"].labels
    assert (written.cut_questions, written.answer_tokens) == (1, 48) and written.cut_tokens > 200
    assert (chosen.cut_questions, chosen.answer_tokens) == (1, 0) and 200 < chosen.cut_tokens < written.cut_tokens
    assert "fatal" not in capfd.readouterr().err


def test_a_folder_of_tasks_leads_nowhere_else(tmp_path):
    folder, other = tmp_path / "tasks", tmp_path / "other"
    (folder / "sub").mkdir(parents=True)
    other.mkdir()
    for path in (folder / "mine.py", folder / "base.yaml", other / "their.py", other / "their.yaml"):
        path.write_text("")
    task = folder / "sub" / "task.yaml"
    for inside in ("include: ../base.yaml", "doc_to_text: !function lm_eval.utils.x", "a: &a {b: 1}\nc: *a"):
        task.write_text(inside)
        check_folder(folder)
    outside = str(other / "their").replace("/", ".")
    for text in (f"process_docs: !function {outside}.run", "a:\n- {include: ../../other/their.yaml}",
                 f"include: [{other / 'their.yaml'}]"):  # fmt: skip
        task.write_text(text)
        with pytest.raises(MemxError, match=r"task.yaml names .*their.*, which is outside of"):
            check_folder(folder)
    task.write_text("a: [")
    with pytest.raises(MemxError, match=r"task.yaml is not valid YAML"):
        check_folder(folder)
    task.unlink()
    (folder / "link.py").symlink_to(other / "their.py")
    with pytest.raises(MemxError, match=r"link.py leads to .*their.py"):
        check_folder(folder)


def test_results_become_rows_in_memx_units():
    results = {
        "results": {
            "mmlu": {"alias": "mmlu", "acc,none": 0.5, "acc_stderr,none": 0.01},
            "mmlu_a": {"acc,none": 0.25, "acc_stderr,none": "N/A"},
            "none": {"acc,none": 0.0, "acc_stderr,none": 0.0},
            "gsm": {"exact_match,strict": 0.1, "exact_match_stderr,strict": 0.02, "exact_match,flexible": 0.2},
            "text": {"word_perplexity,none": 12.5, "sample_len": 3},
        },
        "n-samples": {"mmlu_a": {"effective": 7}, "mmlu_b": {"effective": 5}, "gsm": {"effective": 4},
                      "text": {"effective": 3}, "none": {"effective": 20}},
        "n-shot": {"mmlu_a": 5},
        "cut": {"mmlu_a": {"cut_questions": 2, "cut_tokens": 9}, "mmlu_b": {"cut_questions": 1, "cut_tokens": 30}},
        "group_subtasks": {"mmlu": ["mmlu_a", "mmlu_b"]},
        "lm_eval": "0.4.13",
    }  # fmt: skip
    rows = {(row.dataset, row.metric): row for row in harness_rows(results, dict(run="r", experiment="e", kind="dense",
                                                                                 model="m"))}  # fmt: skip
    assert set(rows) == {
        ("mmlu", "accuracy"), ("mmlu_a", "accuracy"), ("gsm", "exact_match strict"), ("gsm", "exact_match flexible"),
        ("text", "word_perplexity"), ("none", "accuracy"),
    }  # fmt: skip
    group = rows["mmlu", "accuracy"]
    assert (group.value, group.stderr, group.n) == (50.0, 1.0, 12) and group.high - group.low == pytest.approx(
        3.92, 1e-3
    )
    assert (group.labels.cut_questions, group.labels.cut_tokens) == (3, 30)
    nothing = rows["none", "accuracy"]
    assert nothing.low == 0 and nothing.high == pytest.approx(16.11, abs=0.01)  # not 0 ± 0
    assert rows["mmlu_a", "accuracy"].value == 25.0 and rows["mmlu_a", "accuracy"].stderr is None
    assert rows["mmlu_a", "accuracy"].model_extra["shots"] == 5
    assert rows["text", "word_perplexity"].value == 12.5


@pytest.mark.skipif(find_spec("lm_eval") is None, reason="lm-eval is not installed: pip install 'memx[eval]'")
@pytest.mark.filterwarnings("ignore")
def test_a_policy_that_keeps_all_gives_what_lm_eval_gives_by_itself(tmp_path_factory, tmp_path, monkeypatch):
    import datasets
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    taught, tasks = taught_once(tmp_path_factory.getbasetemp()), tmp_path / "tasks"
    tasks.mkdir()
    lines = [
        {"question": question + " " + "or not " * number, "answer": said or names[0], "choices": ["a", names[0]],
         "label": 1}
        for number, (question, said, names) in enumerate(ASKED)
    ]  # fmt: skip
    data = tmp_path / "questions.jsonl"
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    for task, rest in (("own_written", WRITTEN), ("own_chosen", CHOSEN)):
        (tasks / f"{task}.yaml").write_text(LOCAL.format(task=task, data=data) + rest)
    settings = dict(harness="own_written,own_chosen", harness_folder=tasks)
    found = {}
    for budget in (1.0, 0.25):
        config = config_of(taught, evictions=evictions(["knorm"], [], [budget], every=16), **settings)
        rows, _ = evaluated(config, tmp_path / "runs")
        row = rows["own_chosen", "accuracy"]
        assert row.variant.endswith(f"knorm {100 * budget:g}%") and row.labels.every == 16
        assert 0 < row.labels.evicted_questions <= row.n
        found[budget] = samples_of(tmp_path / "runs" / config.folder)
    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    model, tokenizer = load_model(config)
    tokenizer.split_special_tokens = True
    alone = simple_evaluate(
        HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4, max_length=context_of(model.config)),
        tasks=["own_written", "own_chosen"], task_manager=manager, log_samples=True,
    )  # fmt: skip
    wanted = {
        (task, one["doc_id"], one["filter"]): (one["filtered_resps"], {name: one[name] for name in one["metrics"]})
        for task, several in alone["samples"].items()
        for one in several
    }
    assert found[1.0].keys() == wanted.keys()
    for key, (answers, scores) in wanted.items():
        assert found[1.0][key]["scores"] == pytest.approx(scores)
        for mine, own in zip(found[1.0][key]["answers"], answers, strict=True):
            assert mine == own if isinstance(own, str) else mine == pytest.approx(list(own), abs=1e-4)
    assert any(found[0.25][key]["answers"] != found[1.0][key]["answers"] for key in wanted)


def samples_of(folder):
    lines = map(json.loads, (folder / "samples.jsonl").read_text().splitlines())
    return {(line["task"], line["number"], line["filter"]): line for line in lines}


def test_samples_of_a_task_that_a_kill_cut_off_are_left_out(tmp_path):
    file = JsonLines(tmp_path / "samples.jsonl")
    sample = {"doc_id": 0, "filter": "none", "target": 1, "filtered_resps": [(-1.5, True)], "metrics": ["acc"],
              "acc": 1.0, "prompt_hash": "x"}  # fmt: skip
    samples = Samples(file, set())
    samples.append("group", {"a": [sample], "b": [sample]})
    samples.append("cut off", {"c": [sample]})
    assert [line["task"] for line in file.lines()] == ["a", "b", "c"]
    Samples(file, {"group"})
    assert [line["task"] for line in file.lines()] == ["a", "b"]
    assert file.lines()[0]["answers"] == [[-1.5, True]] and file.lines()[0]["scores"] == {"acc": 1.0}
