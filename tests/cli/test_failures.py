"""Whatever a command raises: one line, perhaps a hint, an exit code; and paths that cannot be meant."""

import errno
import os

import pytest
import typer
from memx.cli import main
from memx.cli.main import run as memx
from memx.errors import MemxError

DEBUG = "\nhint: add --debug to see the traceback"


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (MemxError("no [/red] here", hint="a\x1bb"), 2, "error: no [/red] here\nhint: a\\x1bb"),
        (KeyError("x"), 1, "unexpected error: KeyError: 'x'" + DEBUG),
        (AssertionError(), 1, "unexpected error: AssertionError: AssertionError" + DEBUG),
        (RecursionError("too deep"), 1, "unexpected error: RecursionError: too deep" + DEBUG),
        (RuntimeError("Symlink loop from '/a/loop'"), 2,
         "error: a symbolic link leads to itself: Symlink loop from '/a/loop'\nhint: choose another path"),
        (
            RuntimeError("CPUAllocator: can't allocate memory: you tried to allocate 2147483648 bytes. Error code 12"),
            1,
            ("failed: out of memory: 2.00 GiB are needed at once\nhint: use a smaller model, table or batch; --dry-run "
            "shows sizes"),
        ),
        (MemoryError(), 1, "failed: out of memory\nhint: use a smaller model, batch or file"),
        (RuntimeError("CUDA: of\nno use"), 1, "failed: CUDA: of"),
        (OSError(errno.ENOSPC, "No space left on device", "file"), 2,
         "error: cannot use file: No space left on device\nhint: free space, or choose another path"),
        (OSError(errno.EIO, "Input/output error"), 1,
         "failed: [Errno 5] Input/output error" + DEBUG),
        (KeyboardInterrupt(), 130, "interrupted"),
        (SystemExit(0), 0, ""),
        (SystemExit(77), 1, ""),
        (SystemExit("words"), 1, ""),
        (typer.Exit(1), 1, ""),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)  # fmt: skip
def test_every_error_is_a_line_and_an_exit_code(monkeypatch, capsys, error, code, line):
    def app(**kwargs):
        raise error

    monkeypatch.setattr(main, "command_tree", lambda: app)
    assert memx(["train"]) == code
    captured = capsys.readouterr()
    assert captured.err.strip() == line and captured.out == ""


def test_a_message_without_an_end_is_cut(monkeypatch, capsys):
    monkeypatch.setattr(main, "command_tree", lambda: lambda **kwargs: (_ for _ in ()).throw(MemxError("x" * 10**6)))
    assert memx([]) == 2 and len(capsys.readouterr().err) < 2000


def test_a_traceback_is_shown_only_when_it_is_asked_for(monkeypatch, capsys):
    monkeypatch.setattr(main, "command_tree", lambda: lambda **kwargs: {}["no\x1bkey"])
    assert memx([], debug=True) == 1
    told = capsys.readouterr().err
    assert "Traceback" in told and "\x1b" not in told


@pytest.fixture(scope="module")
def root():
    """All commands, made once."""
    return main.command_tree()


def options_of(command, path=()):
    """The words of each command, and the parameters of it that are paths."""
    for name, one in getattr(command, "commands", {}).items():
        yield from options_of(one, (*path, name) if name != "default" else path)
    if not hasattr(command, "commands"):
        for param in command.params:
            if "Path" in str(getattr(param, "type_descriptor", None) or param.type):
                yield path, command, param


ODD = ["", "x" * 5000, "~no-such-user/x", "a\nb", "a\x1bb"]


def test_no_path_is_empty_too_long_or_of_control_characters(root, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    checked = 0
    for path, command, param in options_of(root):
        needed = ["q" for other in command.params if other.param_type_name == "argument" and other.required]
        for value in [*ODD[checked % 3 :: 3], "-"]:  # each of them for many options
            if (path[-1:], param.name, value) == (("evict",), "file", "-"):
                continue  # standard input
            given = (
                [*needed[1:], value]
                if param.param_type_name == "argument"
                else [*needed, max(param.opts, key=len), value]
            )
            assert memx([*path, *given]) == 2, (path, given)
            told = capsys.readouterr().err.splitlines()
            assert told[0].startswith("error: ") and len(told) <= 2 and len(told[0]) < 200, told
        checked += 1
    assert checked > 60 and not list(tmp_path.iterdir())


def test_a_home_is_written_in_full(root, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert memx(["runs", "--runs", "~/runs"]) == 0
    assert str(tmp_path / "runs") in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "about"),
    [
        (["evict", "--file", "folder"], "folder"),
        (["config", "copy", "tiny", "folder", "--force"], "folder"),
        (["train", "folder"], "folder"),
        (["plot", "--out", "file", "folder"], ""),
        (["runs", "--runs", "file"], "file"),
        (["convert", "file"], "file"),
        (["prepare", "file", "--check"], "file"),
        (["bench", "compare", "folder", "file"], "folder"),
        (["bench", "list", "--json", "--help", "x"], None),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_folder_is_no_file_and_a_file_no_folder(root, monkeypatch, capsys, tmp_path, arguments, about):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("text")
    code = memx(arguments)
    told = capsys.readouterr().err
    if about is None:
        assert code == 0
        return
    assert code == 2 and told.startswith("error: ") and about in told.splitlines()[0], told
    assert len(told.splitlines()) <= 2 and (tmp_path / "file").read_text() == "text"


def test_a_subcommand_after_options_is_named(capsys):
    assert memx(["bench", "--save", "x", "ops"]) == 2
    told = capsys.readouterr().err
    assert "ops must come before the options" in told and "write memx bench ops --save x" in told


def test_bytes_of_a_command_line_that_are_no_text_are_shown(capsys):
    assert memx(["evict", "--file", os.fsdecode(b"no-\xff[/]")]) == 2
    assert "no-\\xff[/]" in capsys.readouterr().err
