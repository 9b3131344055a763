"""Folders in the layout of kvpress's leaderboard: of a real small evaluation, and of lines made by hand."""

import ast
import json

import pandas as pd
import pytest
import yaml
from memx import namm
from memx.experiments.config.base import run_name
from memx.experiments.config.loading import load_eval_config
from memx.experiments.policy_eval.leaderboard import LEADERBOARD, write_leaderboard
from memx.experiments.policy_eval.run import RESULTS, eval_namm
from memx.experiments.policy_eval.sources import eval_tree
from memx.experiments.runtime.options import Options
from memx.namm.policies.rule import Rule
from transformers import AutoTokenizer

from ..evolution.tiny_evolution import write_host
from .tiny_evaluation import config, scorer

COLUMNS = ["task", "question", "answer_prefix", "answer", "predicted_answer"]


def string_match_all(table):
    """The score of a task as its definition says: the mean share of answers that an output contains, in percent."""
    shares = []
    for answers, text in zip(table["answer"].map(ast.literal_eval), table["predicted_answer"], strict=True):
        shares.append(sum(answer.lower() in str(text).lower() for answer in answers) / len(answers))
    return round(100 * sum(shares) / len(shares), 2)


def test_an_evaluation_on_ruler_writes_a_folder_for_each_policy_and_ratio(tmp_path):
    host = write_host(tmp_path / "host")
    namm.save(scorer(Rule(budget=0.5)), tmp_path / "mine", host="another", tasks=["key_values"])
    given = {"host.name": str(host), "host.threads": 1, "tasks": ["ruler/niah_single_1", "ruler/niah_multikey_2"]}
    given |= {"length": 700, "prompts": 2, "budgets": [0.4], "policies": ["knorm"], "resamples": 100, "write": True}
    given |= {"documents": 0, "answer_tokens": 4}
    resolved = load_eval_config(eval_tree([tmp_path / "mine"], given), [*given.items()])
    eval_namm(resolved, Options(tmp_path / "runs"), lambda event: None)
    root = tmp_path / "runs" / run_name(resolved) / LEADERBOARD
    start = f"ruler__700__{str(host).replace('/', '--')}"
    tokenizer = AutoTokenizer.from_pretrained(host)
    longest = max(len(tokenizer.decode([token])) for token in range(len(tokenizer)))
    names = {"no_press__0.00", "namm__0.50", "namm__0.60", "knorm__0.50", "knorm__0.60"}
    assert {folder.name for folder in root.iterdir()} == {f"{start}__{name}" for name in names}
    for folder in root.iterdir():
        assert {path.name for path in folder.iterdir()} == {"config.yaml", "metrics.json", "predictions.csv"}
        table = pd.read_csv(folder / "predictions.csv", keep_default_na=False)
        assert list(table.columns) == COLUMNS and len(table) == 4
        metrics = json.loads((folder / "metrics.json").read_text())
        assert metrics == {task: {"string_match": string_match_all(of)} for task, of in table.groupby("task")}
        about = yaml.safe_load((folder / "config.yaml").read_text())
        assert (about["dataset"], about["data_dir"], about["query_aware"]) == ("ruler", "700", False)
        assert about["max_new_tokens"] == 4 and about["prompts"] == 4
        assert table["predicted_answer"].str.len().max() <= 4 * longest
        assert folder.name.endswith(f"{about['press_name']}__{about['compression_ratio']:.2f}")


@pytest.mark.parametrize(("question", "ending"), [("after", ""), ("before", "__query_aware")])
def test_scores_are_means_by_task_in_percent(tmp_path, question, ending):
    told = {"question": "\nWhat?", "answer_prefix": " It is", "answers": ["1", "2"], "tokens": 9}
    lines = [
        {"task": task, "number": number, **told,
         "facts": [{"variant": "full", "budget": None, "size": "budget", "text": "1 2", "score": 1.0},
                   {"variant": "snapkv table", "budget": 0.25, "size": "budget", "text": text, "score": score},
                   {"variant": "knorm", "budget": 0.3, "size": "own", "text": "", "score": 0.0}]}
        for task, number, text, score in (
            ("ruler/vt", 0, "1", 0.5), ("ruler/vt", 1, "", 0.0), ("ruler/cwe", 0, "2, 1", 1.0)
        )
    ]  # fmt: skip
    lines += [{"task": "quote", "number": 0, "tokens": 9, "facts": lines[0]["facts"]}]
    path = tmp_path / RESULTS
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = write_leaderboard(path, config(tasks=("ruler/vt", "ruler/cwe"), question=question, length=4096))
    assert [folder.name for folder in found] == [
        f"ruler__4096__none__no_press__0.00{ending}", f"ruler__4096__none__snapkv-table__0.75{ending}"
    ]  # fmt: skip
    assert json.loads((found[1] / "metrics.json").read_text()) == {
        "cwe": {"string_match": 100.0},
        "vt": {"string_match": 25.0},
    }


def test_sizes_that_round_alike_have_folders_of_their_own(tmp_path):
    fact = {"variant": "knorm", "size": "budget", "text": "1", "score": 1.0}
    facts = [{**fact, "budget": budget} for budget in (0.125, 0.12)]
    line = {"task": "ruler/vt", "number": 0, "tokens": 9, "question": "", "answer_prefix": "", "answers": ["1"]}
    (tmp_path / RESULTS).write_text(json.dumps({**line, "facts": facts}) + "\n")
    found = write_leaderboard(tmp_path / RESULTS, config(tasks=("ruler/vt",), length=4096))
    assert {folder.name.rpartition("__")[2] for folder in found} == {"0.875", "0.880"}


def test_an_evaluation_without_written_answers_has_no_folders(tmp_path):
    (tmp_path / RESULTS).write_text('{"task": "ruler/vt", "number": 0, "tokens": 9, "facts": []}\n')
    assert write_leaderboard(tmp_path / RESULTS, config(tasks=("ruler/vt",))) == []
    assert not (tmp_path / LEADERBOARD).exists()


def test_ruler_names_all_of_its_tasks(tmp_path):
    named = config(tasks=("quote", "ruler")).tasks
    assert named[:2] == ("quote", "ruler/niah_single_1") and len(named) == 12
    assert config(tasks=("ruler/qa_1",)).tasks == ("ruler/qa_1",)
    with pytest.raises(ValueError, match=r"no task 'ruler/niah_singel_1'; did you mean 'ruler/niah_single_1'"):
        config(tasks=("ruler/niah_singel_1",))
    with pytest.raises(ValueError, match="has an entry twice"):
        config(tasks=("ruler/vt", "ruler"))
