"""Measurements as lines of prompts.jsonl: the keys and their order, and back."""

import json

from memx.experiments.eviction.measurements import CacheSize, CacheUse, Measurements

USE = CacheUse(kept=0.25, held=0.5, layers=[0.25, 0.25], kv_bytes=100, bookkeeping_bytes=10)
USE_LINE = '"kept": 0.25, "held": 0.5, "layers": [0.25, 0.25], "kv_bytes": 100, "bookkeeping_bytes": 10'
WRITTEN = '"log_likelihood": -1.0, "exact": true, "score": 0.5, "text": "Paris"'


def test_a_line_is_flat_and_reads_back():
    short = Measurements("tova", CacheSize(0.25), USE, -1.5, False)
    full = Measurements("h2o", CacheSize(None, "own", "namm"), USE, -1.0, True, 0.5, "Paris")
    lines = [json.dumps(entry.line()) for entry in (short, full)]
    assert lines == [
        f'{{"variant": "tova", "budget": 0.25, "size": "budget", {USE_LINE}, "log_likelihood": -1.5, "exact": false}}',
        f'{{"variant": "h2o", "budget": null, "size": "own", "beside": "namm", {USE_LINE}, {WRITTEN}}}',
    ]
    assert [Measurements.from_line(json.loads(line)) for line in lines] == [short, full]
