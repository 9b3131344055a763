"""Whatever is imported first, the Auto classes know memx's model when they are there."""

import subprocess
import sys

import pytest

ORDERS = [
    "import memx; from transformers import AutoModelForCausalLM",
    "from transformers import AutoModelForCausalLM; import memx",
    "import memx; from memx import MemoryLlamaConfig; from transformers import AutoModelForCausalLM",
    "import memx; from transformers import LlamaForCausalLM, AutoModelForCausalLM",
    "from memx.experiments.models import describe; from transformers import AutoConfig, AutoModelForCausalLM",
    "from memx.experiments.models import start; from transformers import AutoModelForCausalLM",
]


@pytest.mark.parametrize("imports", ORDERS, ids=range(len(ORDERS)))
def test_auto_classes_know_the_model_in_any_order_of_imports(imports):
    code = f"{imports}\nfrom transformers import AutoConfig\nprint(type(AutoConfig.for_model('memory_llama')).__name__)"
    result = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert result.stdout.strip().endswith("MemoryLlamaConfig"), result.stderr
