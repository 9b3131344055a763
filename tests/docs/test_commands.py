"""Every command that the pages and --help print works: run small, or resolved where it needs a GPU, a hub or minutes."""

import pytest

from .printed import commands, mentions
from .runner import check_parsed, run_line


@pytest.mark.parametrize("printed", commands(), ids=str)
def test_a_printed_command_works(printed, box):
    run_line(printed.line, box)


@pytest.mark.parametrize("printed", mentions(), ids=str)
def test_a_command_in_a_sentence_parses(printed):
    check_parsed(printed.line.replace("…", "").replace("...", ""))
