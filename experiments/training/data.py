"""What a run trains on: facts, packed anew each pass, or a corpus as a stream -> tokenizer, batches, micro-batches."""

from __future__ import annotations

from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from torch import Tensor

from ...files import write_atomically
from ...results.store.runs import Run
from ..config.training import TrainConfig
from ..data.batches import Batch, PackedBatches
from ..data.fact_text import text_of_source
from ..data.fact_tokens import train_on_facts
from ..data.facts.questions import FactSplit, documents_of
from ..data.part_batches import PartBatches, open_batches
from ..data.text import split_text
from ..data.tokenizer import tokenizer_from_text
from ..runtime.events import Note, Phase, Report

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from ..data.corpus.stream import CorpusBatches
    from ..distributed.parallel import Parallelism


_TOKENIZER_TEXT = 4_000_000  # characters of mixed-in text that a tokenizer is trained on, at most


class Batches(Protocol):
    """An endless stream of batches, which goes on from a saved position."""

    def __next__(self) -> Any: ...

    def seek(self, position: Any) -> None:
        """Go to a position that `TrainingData.position` gave."""
        ...


class TrainingData(Protocol):
    """Where batches come from, and how they are cut for this process. Every rank calls each method."""

    def new_tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer of a run from scratch: made at its start, read again when the run goes on."""
        ...

    def open(self, tokenizer: PreTrainedTokenizerFast) -> Batches:
        """Open the stream, before any other method below. Raises MemxError for data that cannot be trained on."""
        ...

    def micro_batches(self, batch: Any) -> tuple[list[Any], int, int]:
        """This rank's micro-batches; how many tokens (or prompts) of all ranks the loss counts, and all tokens."""
        ...

    def position(self) -> dict[str, Any]:
        """Where the stream stands, for any number of ranks to go on from."""
        ...

    def first_tokens(self) -> tuple[Tensor, Tensor]:
        """The tokens [R, S] of the first batch, and which of them are no padding; the stream stays at its start."""
        ...

    def tokens_per_step(self) -> int:
        """Tokens that all ranks read together in a step, padding included."""
        ...


def make_data(
    config: TrainConfig, split: FactSplit, run: Run, parallelism: Parallelism, report: Report
) -> TrainingData:
    """The data of a config: its corpus, or the training part of its facts.

    Args:
        config: of the run.
        split: the facts; empty for a corpus.
        run: whose folder keeps the tokenizer.
        parallelism: the processes that share the run.
        report: gets an event for what takes long, and for what was noticed.
    """
    if config.corpus.sources:
        return CorpusData(config, run, parallelism, report)
    return FactData(config, split, run, parallelism, report)


class FactData:
    """`TrainingData` of facts. A batch is the same on every rank, and each takes its rows of every micro-batch."""

    batches: PackedBatches | PartBatches

    def __init__(
        self, config: TrainConfig, split: FactSplit, run: Run, parallelism: Parallelism, report: Report
    ) -> None:
        self.config, self.split, self.run, self.parallelism, self.report = config, split, run, parallelism, report

    def new_tokenizer(self) -> PreTrainedTokenizerFast:
        """See `TrainingData`; trained on the run's own documents."""
        return tokenizer_from_text(self.parallelism.world.on_first(self._tokenizer_text))

    def open(self, tokenizer: PreTrainedTokenizerFast) -> PackedBatches | PartBatches:
        """See `TrainingData`. Every document fits in a row: `check_lengths` has measured them."""
        self._note_short_training()
        self.batches = open_batches(self.config, self.split, tokenizer)
        return self.batches

    def micro_batches(self, batch: Batch) -> tuple[list[Batch], int, int]:
        """See `TrainingData`."""
        # split first and shared out then, so that a rank has as many micro-batches as one process alone
        parts = split_rows(batch, self.config.training.accumulate)
        return [self.parallelism.rows_of(part) for part in parts], *count_tokens(batch)

    def position(self) -> dict[str, Any]:
        """See `TrainingData`."""
        return cast(dict[str, Any], self.batches.position)

    def first_tokens(self) -> tuple[Tensor, Tensor]:
        """See `TrainingData`."""
        first = self._first_batch()
        return first.tokens, first.documents >= 0

    def tokens_per_step(self) -> int:
        """See `TrainingData`; of the first step."""
        return self._first_batch().tokens.numel()

    def _first_batch(self) -> Batch:
        start = self.batches.position
        first = next(self.batches)
        self.batches.seek(start)
        return first

    def _tokenizer_text(self) -> str:
        path = self.run.folder / "tokenizer.json"
        if not path.is_file():
            self.report(Phase("training the tokenizer"))
            tokenizer = build_tokenizer(self.config, self.split)
            write_atomically(path, tokenizer.backend_tokenizer.to_str())
        return path.read_text("utf-8")

    def _note_short_training(self) -> None:
        """Say so if the steps end before every phrasing of a fact was shown: then not all of `seen` was seen."""
        passes = self.config.training.steps * self.config.training.batch / len(self.split.trained)
        most = max(len(documents_of(fact, self.split.seed, self.split.wording)) for fact in self.split.trained)
        if passes < most:
            self.report(
                Note(f"training covers {passes:.1f} epochs, so not all of the {most} phrasings of a fact are seen")
            )


class CorpusData:
    """`TrainingData` of a corpus. Each rank reads documents of its own, so that a batch holds its rows alone."""

    batches: CorpusBatches

    def __init__(self, config: TrainConfig, run: Run, parallelism: Parallelism, report: Report) -> None:
        self.config, self.run, self.parallelism, self.report = config, run, parallelism, report

    def new_tokenizer(self) -> PreTrainedTokenizerFast:
        """See `TrainingData`; the corpus's own, the one that the config names, or one trained on its beginning."""
        from ..base_models.load import load_tokenizer

        return load_tokenizer(str(self.parallelism.world.on_first(self._tokenizer_folder)))

    def open(self, tokenizer: PreTrainedTokenizerFast) -> CorpusBatches:
        """See `TrainingData`. Raises MemxError for a corpus that is not there or cannot be shared out evenly."""
        from ..data.corpus.stream import CorpusBatches

        config, world = self.config, self.parallelism.world
        self.batches = CorpusBatches(
            config.corpus,
            tokenizer,
            rows=config.training.batch,
            sequence=config.data.sequence,
            seed=config.seed,
            rank=world.rank,
            world=world.size,
            notes=self._note,
        )
        return self.batches

    def micro_batches(self, batch: Batch) -> tuple[list[Batch], int, int]:
        """See `TrainingData`."""
        counted, tokens = self.parallelism.totals(count_tokens(batch))
        return split_rows(batch, self.config.training.accumulate), int(counted), int(tokens)

    def position(self) -> dict[str, Any]:
        """See `TrainingData`."""
        from ..data.corpus.stream import merge_positions

        return merge_positions(self.parallelism.world.gather(self.batches.position))

    def first_tokens(self) -> tuple[Tensor, Tensor]:
        """See `TrainingData`; of the first rank, for all of them."""
        start = self.batches.position
        first = next(self.batches)
        self.batches.seek(start)
        return self.parallelism.world.broadcast((first.tokens, first.documents >= 0))

    def tokens_per_step(self) -> int:
        """See `TrainingData`."""
        return self.config.training.batch * self.config.data.sequence

    def _tokenizer_folder(self) -> Path:
        from ..data.corpus.vocabulary import corpus_tokenizer, save_tokenizer

        path = self.run.folder / "tokenizer"
        if not path.is_dir():
            self.report(Phase("preparing the tokenizer"))
            tokenizer = corpus_tokenizer(self.config.corpus, self.config.data.vocabulary, self._note)
            save_tokenizer(tokenizer, path)
        return path

    def _note(self, text: str) -> None:
        self.report(Note(text, own=True))  # other ranks read other documents


def build_tokenizer(config: TrainConfig, split: FactSplit) -> PreTrainedTokenizerFast:
    """Train the tokenizer of facts.

    Args:
        config: whose `data.vocabulary` is the most entries that it gets.
        split: whose training documents it is trained on, with the text that is mixed in.
    """
    text: list[str] = []
    if config.text.source is not None and config.text.mix:
        seed = config.data.seed if config.text.seed is None else config.text.seed
        documents, _ = split_text(text_of_source(config.text.source), config.text.held_out, seed)
        ends = accumulate(map(len, documents))
        text = [document for document, end in zip(documents, ends, strict=True) if end <= _TOKENIZER_TEXT]
    return train_on_facts(split, config.data.vocabulary, text)


def split_rows(batch: Batch, parts: int) -> list[Batch]:
    """Split a batch by rows into at most so many micro-batches, none of them empty."""
    split = [tensor.tensor_split(parts) for tensor in batch]
    return [Batch(*part) for part in zip(*split, strict=True) if len(part[0])]


def count_tokens(batch: Batch) -> tuple[int, int]:
    """Tokens that the loss counts, and tokens that are no padding."""
    return int((batch.labels != -100).sum()), int((batch.documents >= 0).sum())
