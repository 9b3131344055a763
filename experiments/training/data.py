"""What a run trains on: facts, packed anew each pass, or a corpus as a stream -> batches and their position."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor

from ...files import put_in_place, write_atomically
from ...results.store.runs import Run
from ..config.training import TrainConfig
from ..data.batches import Batch, PackedBatches, check_lengths
from ..data.facts.questions import FactSplit, documents_of
from ..data.tokenizer import tokenizer_from_text, train_tokenizer
from ..distributed.process_group import World
from ..runtime.events import Note, Phase, Report

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from ..data.corpus.stream import CorpusBatches


class TrainingData:
    """Where batches come from. divided: whether a batch holds this rank's rows alone, or those of all ranks."""

    def __init__(self, config: TrainConfig, split: FactSplit, run: Run, world: World, report: Report) -> None:
        self.config, self.split, self.run, self.world, self.report = config, split, run, world, report
        self.divided = bool(config.corpus.sources)

    def new_tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer of a run from scratch: trained at its start, read again when it goes on, or one by name."""
        if not self.divided:
            return tokenizer_from_text(self.world.on_first(self._trained))
        from ..base_models.load import load_tokenizer

        return load_tokenizer(str(self.world.on_first(self._of_the_corpus)))

    def batches(self, tokenizer: PreTrainedTokenizerFast) -> PackedBatches | CorpusBatches:
        """The endless stream of batches. Raises MemxError for facts that fit in no row, or a lacking corpus."""
        config = self.config
        if self.divided:
            from ..data.corpus.stream import CorpusBatches

            return CorpusBatches(
                config.corpus,
                tokenizer,
                rows=config.training.batch,
                sequence=config.data.sequence,
                seed=config.seed,
                rank=self.world.rank,
                world=self.world.size,
                notes=self._own_note,
            )
        check_lengths(self.split.trained, tokenizer, config.data.sequence, self.split.seed)
        self._note_short_training()
        return PackedBatches(
            self.split.trained,
            tokenizer,
            batch=config.training.batch,
            sequence=config.data.sequence,
            seed=config.seed,
            split_seed=self.split.seed,
            loss_on=config.data.loss_on,
        )

    def position(self, batches: PackedBatches | CorpusBatches) -> dict[str, Any]:
        """Where the stream stands, for any number of ranks to go on from; every rank calls this."""
        if not self.divided:
            return cast(dict[str, Any], batches.position)
        from ..data.corpus.stream import merge_positions

        return merge_positions(self.world.gather(batches.position))

    def first_batch(self, batches: PackedBatches | CorpusBatches) -> Batch:
        """The first batch of facts; the stream then stands at its start."""
        assert isinstance(batches, PackedBatches)
        first = next(batches)
        batches.seek({"epoch": 0, "cursor": 0})
        return first

    def first_tokens(self, batches: PackedBatches | CorpusBatches) -> tuple[Tensor, Tensor]:
        """The tokens [R, S] of the first batch of facts, and which of them are no padding."""
        first = self.first_batch(batches)
        return first.tokens, first.documents >= 0

    def tokens_per_step(self, batches: PackedBatches | CorpusBatches) -> int:
        """Tokens that the ranks read together in a step, padding too."""
        if self.divided:
            return self.config.training.batch * self.config.data.sequence
        return self.first_batch(batches).tokens.numel()

    def _trained(self) -> str:
        path = self.run.folder / "tokenizer.json"
        if not path.is_file():
            self.report(Phase("training the tokenizer"))
            made = build_tokenizer(self.config, self.split)
            write_atomically(path, made.backend_tokenizer.to_str())
        return path.read_text("utf-8")

    def _of_the_corpus(self) -> Path:
        """The folder of the run's tokenizer; it is written at the start of the run."""
        from ..data.corpus.vocabulary import corpus_tokenizer

        path = self.run.folder / "tokenizer"
        if not path.is_dir():
            self.report(Phase("finding or training the tokenizer"))
            made = corpus_tokenizer(self.config.corpus, self.config.data.vocabulary, self._own_note)
            temporary = path.with_name(".tokenizer.tmp")
            shutil.rmtree(temporary, ignore_errors=True)
            made.save_pretrained(temporary)
            put_in_place(temporary, path)
        return path

    def _own_note(self, text: str) -> None:
        self.report(Note(text, own=True))  # other ranks read other documents

    def _note_short_training(self) -> None:
        """Say so if the steps end before every phrasing of a fact was shown: then not all of `seen` was seen."""
        passes = self.config.training.steps * self.config.training.batch / len(self.split.trained)
        most = max(len(documents_of(fact, self.split.seed)) for fact in self.split.trained)
        if passes < most:
            self.report(Note(f"{passes:.1f} passes show each fact in fewer than its {most} phrasings"))


def build_tokenizer(config: TrainConfig, split: FactSplit) -> PreTrainedTokenizerFast:
    """Train the tokenizer on the training documents."""
    texts = (document.text for fact in split.trained for document in documents_of(fact, split.seed))
    return train_tokenizer(texts, config.data.vocabulary)
