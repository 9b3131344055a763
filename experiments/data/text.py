"""Ordinary text (Python's documentation or source, a user's file) -> documents, token blocks, a model's loss on them.

What a model knew before it was given a memory is measured here: the loss on text that no fact was taken from.
"""

from __future__ import annotations

import sys
import sysconfig
import tokenize
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...errors import MemxError
from ...files import line_not_utf8
from .records.read import read_records
from .records.record import BadRecord, BadRecords
from .tokenizer import encode_text

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

SUFFIXES = (".txt", ".jsonl")
_PIECE = 8_000  # characters, at least, of a document cut from a .txt file
_SHORTEST_MODULE = 1_000  # characters
# tables, tests and packages that some versions of Python lack
_NOT_SOURCE = {"distutils", "encodings", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "test", "turtledemo"}


def ordinary_text(name: str) -> list[str]:
    """Return documents, each different: `python-docs` (prose), `python-source` (code), a file, or several by commas.

    A .jsonl file has one document a line in the field `text`; a .txt file is cut at empty lines into documents of
    about 8,000 characters. Raises MemxError if there is no such text or file, or it is malformed or empty.
    """
    if name in _TEXTS:
        return _distinct(_TEXTS[name]())
    if "," in name and not Path(name).expanduser().is_file():
        return _distinct(text for one in name.split(",") for text in ordinary_text(one.strip()))
    path = Path(name).expanduser()
    if path.suffix.lower() not in SUFFIXES:
        raise MemxError(f"no text source {name!r}", hint=f"use {', '.join(_TEXTS)}, or a path ending in .txt or .jsonl")
    if not path.is_file():
        raise MemxError(f"no text file {name}", hint="give an existing .txt or .jsonl file")
    if path.suffix.lower() == ".jsonl":
        documents = _distinct(_json_texts(path))
    else:
        documents = _distinct(_pieces(_read(path, name)))
    if not documents:
        raise MemxError(f"{name} contains no text", hint="give a file with text")
    return documents


def _read(path: Path, name: str) -> str:
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError:
        raise MemxError(f"{name} line {line_not_utf8(path)} is not UTF-8", hint="save the file as UTF-8") from None
    except OSError as error:
        raise MemxError(
            f"cannot read {name}: {error.strerror or error}", hint="check the path and its permissions"
        ) from None


def split_text(texts: Sequence[str], held_out: float, seed: int) -> tuple[list[str], list[str]]:
    """Split documents into (train, held out), drawn by seed; equal documents go to the same side.

    held_out: the share held out, 0 to 1; each side gets at least one. Raises MemxError if there are not two.
    """
    assert 0 < held_out < 1, held_out
    documents = _distinct(texts)
    if len(documents) < 2:
        raise MemxError("the text is one document and cannot be split", hint="give at least two documents")
    order = torch.randperm(len(documents), generator=torch.Generator().manual_seed(seed)).tolist()
    count = min(max(round(held_out * len(documents)), 1), len(documents) - 1)
    held = set(order[:count])
    train = [text for index, text in enumerate(documents) if index not in held]
    return train, [documents[index] for index in sorted(held)]


def text_blocks(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerFast, *, block: int, most: int, seed: int
) -> Tensor:
    """Return at most `most` blocks of token ids, [blocks, block], no two overlapping, drawn by seed.

    A block is from one document, or from several shorter ones with the end token after each. Every document gives
    one block before any gives a second. Where the tokenizer begins a text with a token, every block begins with it.
    Raises MemxError if there is not one block's worth of text.
    """
    begin = _begin(tokenizer)
    size = block - len(begin)
    assert size > 1 and most > 0, (block, most)
    generator = torch.Generator().manual_seed(seed)
    order: list[int] = torch.randperm(len(texts), generator=generator).tolist()
    runs = islice(_token_runs((texts[index] for index in order), tokenizer, size), most)
    cuts = [_cut(run, size, generator) for run in runs]
    if not cuts:
        raise MemxError(
            f"the text is shorter than one block of {block} tokens", hint="give more text, or use shorter blocks"
        )
    drawn = [cut for turn in zip_longest(*cuts) for cut in turn if cut is not None][:most]
    return torch.tensor([begin + cut for cut in drawn])


def text_nll(model: PreTrainedModel, blocks: Tensor, *, batch: int = 4) -> list[tuple[float, int]]:
    """For each block [blocks, block], the summed negative log-likelihood in nats and the tokens predicted (block - 1).

    Runs in eval mode without gradients and leaves every module's mode as it was. Logits exist for one block at a
    time, in float32: [block, vocabulary].
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            return [(nll, blocks.shape[1] - 1) for rows in blocks.split(batch) for nll in _row_nll(model, rows)]
    finally:
        for module, mode in modes:
            module.training = mode


def _row_nll(model: PreTrainedModel, rows: Tensor) -> list[float]:
    rows = rows.to(model.device)
    head: Any = model.get_output_embeddings()
    hidden = model.base_model(input_ids=rows, use_cache=False).last_hidden_state  # [B, T, D]
    return [
        torch.nn.functional.cross_entropy(head(states[:-1]).float(), row[1:], reduction="sum").item()
        for states, row in zip(hidden, rows, strict=True)
    ]


def _begin(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    ids: Any = tokenizer("")["input_ids"]
    return ids[:1] if ids and ids[0] == tokenizer.bos_token_id else []


def _token_runs(texts: Iterable[str], tokenizer: PreTrainedTokenizerFast, size: int) -> Iterator[list[int]]:
    """Token ids of each long enough document, and of short ones joined; every run holds a block at least."""
    end: Any = tokenizer.eos_token_id
    joined: list[int] = []
    for text in texts:
        ids = encode_text(tokenizer, text, begin=False)
        if len(ids) >= size:
            yield ids
            continue
        joined += [*ids, end]
        if len(joined) >= size:
            yield joined
            joined = []


def _cut(ids: list[int], size: int, generator: torch.Generator) -> list[list[int]]:
    """The consecutive blocks of a run, from a drawn start and in a drawn order."""
    start = int(torch.randint(len(ids) % size + 1, (), generator=generator))
    count = (len(ids) - start) // size
    order = torch.randperm(count, generator=generator).tolist()
    return [ids[start + place * size : start + (place + 1) * size] for place in order]


def _python_docs() -> Iterable[str]:
    from pydoc_data.topics import topics

    return [topics[name] for name in sorted(topics)]


def _python_source() -> Iterator[str]:
    """The public modules of the standard library, by path; the list depends on Python's version only."""
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        top = parts[0].removesuffix(".py")
        if top in sys.stdlib_module_names - _NOT_SOURCE and not {"test", "tests"} & {*parts} and top[0] != "_":
            with tokenize.open(path) as file:
                text = file.read()
            if len(text) >= _SHORTEST_MODULE:
                yield text


def _pieces(text: str) -> Iterator[str]:
    piece = ""
    for paragraph in text.split("\n\n"):
        piece += paragraph + "\n\n"
        if len(piece) >= _PIECE:
            yield piece
            piece = ""
    yield piece


def _json_texts(path: Path) -> Iterator[str]:
    bad = BadRecords(path)
    for record in bad.good(read_records(path)):
        text = record.values.get("text")
        if isinstance(text, str):
            yield text
        else:
            bad.add(BadRecord(record.place, "no text in the field 'text'"))
    bad.notes(skip=False)


def _distinct(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(text for text in texts if text.strip()))


_TEXTS = {"python-docs": _python_docs, "python-source": _python_source}
