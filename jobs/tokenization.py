"""A T5 tokenizer trained on the spot: SentencePiece's unigram pieces, with bytes for what no piece covers.

The folder it writes is loaded by ``AutoTokenizer`` and by CTranslate2's converter like a published T5's. As with T5,
runs of white space become one space. It knows no model.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

PAD, EOS, UNK = "<pad>", "</s>", "<unk>"
"""The special pieces of T5, with its ids 0, 1 and 2."""
MODEL_MAX_LENGTH = 512
MIN_VOCAB_SIZE = 356
"""The specials, 256 bytes, and some room."""


def train_tokenizer(texts: Iterable[str], *, vocab_size: int, folder: Path) -> int:
    """Train on the texts and write the folder; the same texts give the same bytes.

    Args:
        texts: both sides of the train split.
        vocab_size: pieces at most, the specials and the 256 bytes included.
        folder: is made if need be.

    Returns:
        The number of pieces, which is less than asked when the texts have no more.

    Raises:
        ValueError: the vocabulary has no room beside the specials and the bytes.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    if vocab_size < MIN_VOCAB_SIZE:
        raise ValueError(f"tokenizer.vocab_size = {vocab_size}: use at least {MIN_VOCAB_SIZE} (256 of them are bytes)")
    # The trainer of `tokenizers` gives other pieces from run to run; SentencePiece's is deterministic on one thread.
    tokenizer = Tokenizer(models.Unigram(_train_pieces(texts, vocab_size), unk_id=2, byte_fallback=True))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    tokenizer.post_processor = processors.TemplateProcessing(single=["$A", EOS], special_tokens=[(EOS, 1)])
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=EOS, unk_token=UNK, model_max_length=MODEL_MAX_LENGTH
    )
    wrapped.save_pretrained(folder)
    return len(wrapped)


def _train_pieces(texts: Iterable[str], vocab_size: int) -> list[tuple[str, float]]:
    """Pieces with their log-probabilities, by id."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        model_type="unigram",
        vocab_size=vocab_size,
        hard_vocab_limit=False,
        byte_fallback=True,
        normalization_rule_name="nfkc",
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        pad_piece=PAD,
        eos_piece=EOS,
        unk_piece=UNK,
        num_threads=1,
        minloglevel=2,
    )
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    return [(processor.id_to_piece(index), processor.get_score(index)) for index in range(len(processor))]
