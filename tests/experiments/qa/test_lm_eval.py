"""lm-eval on a taught checkpoint, with tasks of local files, held against a script of its own."""

import json
from importlib.util import find_spec

import pytest
from memx.experiments.qa import run as qa_run
from memx.experiments.qa.lm_eval_tasks import harness_rows
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


def test_results_become_rows_in_memx_units():
    results = {
        "results": {
            "mmlu": {"alias": "mmlu", "acc,none": 0.5, "acc_stderr,none": 0.01},
            "mmlu_a": {"acc,none": 0.25, "acc_stderr,none": "N/A"},
            "gsm": {"exact_match,strict": 0.1, "exact_match_stderr,strict": 0.02, "exact_match,flexible": 0.2},
            "text": {"word_perplexity,none": 12.5, "sample_len": 3},
        },
        "n-samples": {"mmlu_a": {"effective": 7}, "mmlu_b": {"effective": 5}, "gsm": {"effective": 4},
                      "text": {"effective": 3}},
        "n-shot": {"mmlu_a": 5},
        "group_subtasks": {"mmlu": ["mmlu_a", "mmlu_b"]},
        "lm_eval": "0.4.13",
    }  # fmt: skip
    rows = {(row.dataset, row.metric): row for row in harness_rows(results, dict(run="r", experiment="e", kind="dense",
                                                                                 model="m"))}  # fmt: skip
    assert set(rows) == {
        ("mmlu", "accuracy"), ("mmlu_a", "accuracy"), ("gsm", "exact_match strict"), ("gsm", "exact_match flexible"),
        ("text", "word_perplexity"),
    }  # fmt: skip
    group = rows["mmlu", "accuracy"]
    assert (group.value, group.stderr, group.n) == (50.0, 1.0, 12) and group.high - group.low == pytest.approx(
        3.92, 1e-3
    )
    assert rows["mmlu_a", "accuracy"].value == 25.0 and rows["mmlu_a", "accuracy"].stderr is None
    assert rows["mmlu_a", "accuracy"].model_extra["shots"] == 5
    assert rows["text", "word_perplexity"].value == 12.5
