"""The compiled loops: the same as torch's ops to rounding, the same bits for any number of threads, and optional."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from memx.errors import MemxError
from memx.kernels import native
from memx.kernels.embedding_bag import BagGradient, embedding_bag, row_gradient
from memx.kernels.native import build, threads
from memx.kernels.native import rows as loops
from memx.kernels.product_topk import product_topk
from memx.kernels.sparse_adam import make_state, sparse_adam

needs_compiler = pytest.mark.skipif(native.library() is None, reason="no C compiler here")
SLOTS, BETAS = 3000, (0.9, 0.999)
WIDTHS = (1, 7, 63, 256)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def draw_bags(width, seed=0):
    """700 bags of 4 rows, the last 100 rows never, some others many times; weights and what comes back to them."""
    slots = torch.randint(SLOTS - 100, (700, 4), generator=torch.Generator().manual_seed(seed))
    return BagGradient(slots, draw(700, 4, seed=seed + 1), draw(700, width, seed=seed + 2))


def adam_steps(width, impl, **settings):
    """Values and state after 5 steps of different rows."""
    values = draw(SLOTS, width)
    state = make_state(values, **settings)
    for step in range(1, 6):
        gradient = row_gradient([draw_bags(width, seed=10 * step)])
        sparse_adam(values, gradient, state, step=step, lr=0.01, betas=BETAS, scale=0.7, impl=impl)
    return {"values": values, **state.tensors()}


@needs_compiler
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("second_moment", ["full", "row"])
@pytest.mark.parametrize("moments", [torch.float32, torch.bfloat16])
def test_adam_equals_torchs_ops(width, second_moment, moments):
    settings = {"second_moment": second_moment, "moments": moments}
    ours, theirs = adam_steps(width, "native", **settings), adam_steps(width, "torch", **settings)
    for name, tensor in ours.items():
        own, other = tensor.float(), theirs[name].float()
        if moments == torch.float32:
            torch.testing.assert_close(own, other, rtol=1e-5, atol=1e-6, msg=name)
            continue
        # sums that end halfway between two bfloat16 may be rounded either way, now and then
        close = torch.isclose(own, other, rtol=1e-5, atol=1e-6)
        assert tensor.dtype == theirs[name].dtype and (~close).float().mean() < 2e-3, name
        assert (own - other).abs().max() <= 2**-8 * other.abs().max(), name
    untouched = slice(SLOTS - 100, None)
    assert torch.equal(ours["values"][untouched], draw(SLOTS, width)[untouched])
    assert not ours["momentum"][untouched].any() and not ours["second"][untouched].any()


@needs_compiler
def test_adam_is_refused_where_it_does_not_fit():
    values = draw(SLOTS, 4).double()
    with pytest.raises(MemxError, match="native implementation supports only whole float32"):
        gradient = row_gradient([draw_bags(4)])
        sparse_adam(values, gradient, make_state(values), step=1, lr=0.1, betas=BETAS, impl="native")
    assert torch.equal(values, draw(SLOTS, 4).double())


def layer_outcome(width, kept=3, keys=8):
    """Every gradient of a lookup and a bag over it."""
    query, halves = draw(700, 2, 4).requires_grad_(), draw(2, 2, keys, 2, seed=1).requires_grad_()
    values = draw(keys * keys, width, seed=2).requires_grad_()
    scores, slots = product_topk(query, halves, kept)
    y = embedding_bag(values, slots.flatten(1), scores.softmax(-1).flatten(1))
    return torch.autograd.grad((y * draw(700, width, seed=3)).sum(), (query, halves, values))


@needs_compiler
@pytest.mark.parametrize("width", WIDTHS)
def test_gradients_equal_torchs_ops(width, monkeypatch):
    called = set()
    for name in ("dots", "scatter", "lookup_backward"):
        loop = getattr(native, name)
        monkeypatch.setattr(native, name, lambda *given, loop=loop, name=name: called.add(name) or loop(*given))
    ours = layer_outcome(width)
    assert called == {"dots", "scatter", "lookup_backward"}  # or this test compares one way with itself
    monkeypatch.setattr(loops, "library", lambda: None)
    theirs = layer_outcome(width)
    for own, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-4)


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_gathered_rows_are_the_tables(dtype):
    values, rows = draw(SLOTS, 63).to(dtype), torch.randint(SLOTS, (900,))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        for least in (1, 256, 900):
            out = torch.full((900, 63), torch.nan, dtype=dtype)
            native.gather(values, rows, out, least=least)
            assert torch.equal(out, values[rows])
    finally:
        torch.set_num_threads(before)
    with pytest.raises(IndexError):
        native.gather(values, torch.tensor([SLOTS]), out[:1])


@needs_compiler
def test_any_number_of_threads_gives_the_same_bits():
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            adam = adam_steps(64, "native", moments=torch.bfloat16)
            assert (adam["last"] > 0).sum() > 6 * 256  # enough rows for as many threads
            found.append([*layer_outcome(64), *adam.values()])
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


@needs_compiler
def test_what_is_not_there_is_refused_before_memory_is_touched():
    vectors, values, slots = draw(700, 8), draw(16, 8), torch.zeros(700, 2, dtype=torch.long)
    for wrong in (16, -1, 10**12):
        slots[5, 1] = wrong
        with pytest.raises(IndexError, match=r"must be in 0\.\.15"):
            native.dots(vectors, values, slots)
        with pytest.raises(IndexError, match=r"must be in 0\.\.15"):
            native.scatter(torch.ones(700, 2), slots, vectors, values)
    values = draw(SLOTS, 64)
    with pytest.raises(AssertionError):  # a gradient of another width
        sparse_adam(values, row_gradient([draw_bags(32)]), make_state(values), step=1, lr=0.1, betas=BETAS)
    assert torch.equal(values, draw(SLOTS, 64))


@needs_compiler
def test_another_default_dtype_changes_nothing():
    gradient, expected, values = row_gradient([draw_bags(64)]), draw(SLOTS, 64), draw(SLOTS, 64)
    sparse_adam(expected, gradient, make_state(values), step=1, lr=0.01, betas=BETAS, impl="native")
    state = make_state(values)
    torch.set_default_dtype(torch.bfloat16)
    try:
        sparse_adam(values, gradient, state, step=1, lr=0.01, betas=BETAS, impl="native")
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(values, expected)


@pytest.mark.parametrize("kind", ["torch's", "python's"])
def test_every_part_is_done_and_a_thread_that_fails_is_not_silent(kind, monkeypatch):
    if kind == "python's":
        monkeypatch.setattr(threads, "_team", lambda: None)
    done = []

    def failing(number, start, stop):
        if number:
            raise MemoryError(f"part {start}..{stop}")

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with pytest.raises(MemoryError, match=r"part 300\.\.600"):
            threads.shared(failing, 600, 256)
        threads.shared(lambda *given: done.append(given), 601, 256)
    finally:
        torch.set_num_threads(before)
    assert sorted(done) == [(0, 0, 300), (1, 300, 601)]


@needs_compiler
def test_the_library_is_compiled_once(tmp_path, compiler):
    path = build.compiled(compiler, tmp_path / "new")
    made = path.stat().st_mtime_ns
    assert build.compiled(compiler, tmp_path / "new") == path and path.stat().st_mtime_ns == made
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("setting", [{"CC": "no-such-compiler"}, {"CC": "false"}, {"CC": "cc 'x"}])
def test_without_a_compiler_torchs_ops_stand_in(setting, tmp_path):
    code = (
        "import torch; from memx.kernels import native; from memx.kernels.sparse_adam import OP;"
        "assert native.library() is None and OP.available(torch.device('cpu')) == ('torch',);"
        "OP.run(*OP.make_inputs({'B': 8, 'K': 2, 'N': 16, 'D': 4, 'full': 1}, torch.float32, torch.device('cpu'),"
        "torch.Generator().manual_seed(0)))"
    )
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), **setting}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def compiler():
    return shlex.split(os.environ.get("CC") or "cc")


@pytest.fixture
def compilations(monkeypatch):
    """What is compiled from now on, in no time: the library that the tests before have loaded is copied."""
    made, ready = [], Path(native.library()._name)
    if not ready.is_file():
        pytest.skip("the library of this process is kept nowhere")
    content = ready.read_bytes()

    def copy(command, made_file):
        made.append(command)
        made_file.write_bytes(content)

    monkeypatch.setattr(build, "_compile", copy)
    return made


@pytest.fixture
def kept(tmp_path, monkeypatch, compiler, compilations):
    """The library of a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = build.compiled(compiler, build.cache_folder())
    compilations.clear()
    return path


@needs_compiler
def test_a_kept_library_is_the_users_own_and_loaded_without_a_compiler(kept, compilations):
    assert kept.stat().st_mode & 0o777 == 0o600 and kept.parent.stat().st_mode & 0o777 == 0o700
    assert build.library.__wrapped__() is not None and not compilations


@needs_compiler
def test_what_a_killed_compilation_left_is_removed(kept, monkeypatch, compilations):
    left = kept.parent / build.temporary_beside(kept).name.replace(f"-{os.getpid()}-", f"-{2**22 + 1}-")
    (left / "sub").mkdir(parents=True)
    kept.unlink()
    assert build.library.__wrapped__() is not None and not left.exists() and len(compilations) == 1


@needs_compiler
@pytest.mark.parametrize("damage", ["writable", "stranger", "truncated", "other bytes", "folder writable"])
def test_a_library_that_another_user_or_a_full_disk_may_have_written_is_not_loaded(kept, compilations, damage):
    before = kept.read_bytes()
    if damage == "stranger" and os.getuid():
        pytest.skip("only root can give files away")
    match damage:
        case "writable":
            kept.chmod(0o666)
        case "stranger":
            os.chown(kept, 12345, 12345)
        case "truncated":
            os.truncate(kept, len(before) // 2)
        case "other bytes":
            kept.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
        case "folder writable":
            kept.parent.chmod(0o777)
    assert build.library.__wrapped__() is not None
    assert len(compilations) == (damage != "folder writable")  # who owns a folder can close it again
    (file,) = kept.parent.iterdir()
    assert file.read_bytes() == before and not build.stranger_in(file)


@needs_compiler
@pytest.mark.parametrize("place", ["cache of another user", "cache open to all"])
def test_a_cache_that_others_can_write_to_is_not_used(tmp_path, monkeypatch, compilations, place, caplog):
    if place == "cache of another user" and os.getuid():
        pytest.skip("only root can give files away")
    cache = tmp_path / "cache"
    cache.mkdir()
    if place == "cache open to all":
        cache.chmod(0o777)
    else:
        os.chown(cache, 12345, 12345)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    assert build.library.__wrapped__() is not None and not list(cache.rglob("*.so"))
    assert str(cache) in caplog.text and len(caplog.records) == 1


def fake_compiler(folder, script):
    path = folder / "compiler"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


LAST = 'while [ "$1" != -o ]; do shift; done; '  # then $2 is the library to make


@needs_compiler
@pytest.mark.parametrize(
    "script",
    [
        "exit 0",
        LAST + 'echo garbage >"$2"',
        LAST + ': >"$2"',
        LAST + 'echo "int other;" | cc -shared -fPIC -x c - -o "$2"',
        "kill -9 $$",
    ],
    ids=["makes nothing", "makes garbage", "makes an empty file", "makes no function", "is killed"],
)
def test_a_compiler_that_makes_no_library_is_as_good_as_none(tmp_path, monkeypatch, script):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("CC", fake_compiler(tmp_path, script))
    assert build.library.__wrapped__() is None
    assert build.library.__wrapped__() is None  # and what it made does no harm later


@needs_compiler
def test_a_relative_cache_is_ignored_and_no_home_is_no_failure(tmp_path, monkeypatch, compilations):
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert build.library.__wrapped__() is not None
    assert not list(work.iterdir()) and len(list((home / ".cache/memx").iterdir())) == 1
    monkeypatch.setenv("HOME", "nowhere")
    assert build.library.__wrapped__() is not None and not list(work.iterdir())
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert build.library.__wrapped__() is not None
