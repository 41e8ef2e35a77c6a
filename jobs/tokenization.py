"""A tokenizer trained on the spot for a T5: byte-pair pieces, with bytes for what no piece covers.

The folder it writes is loaded by ``AutoTokenizer`` and by CTranslate2's converter like a published T5's, with T5's
special pieces and ids. As with T5, a text is normalised (NFKC) and runs of white space become one space; nothing else
is lost. It knows no model.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

PAD, EOS, UNK = "<pad>", "</s>", "<unk>"
"""The special pieces of T5, with its ids 0, 1 and 2."""
SPACE = "▁"
"""Stands for a space: a piece always, because its bytes would not be decoded as one."""
MODEL_MAX_LENGTH = 512
NUM_BYTES = 256
MIN_VOCAB_SIZE = NUM_BYTES + 100
"""The specials, the bytes, and some room."""


def train_tokenizer(texts: Iterable[str], *, vocab_size: int, folder: Path) -> int:
    """Train on the texts and write the folder; the same texts give the same bytes.

    Byte-pair merges rather than T5's unigram pieces: the unigram trainers prune frequent words of a small, repetitive
    corpus away (SentencePiece's), or give other pieces from run to run (that of ``tokenizers``).

    Args:
        texts: both sides of the train split.
        vocab_size: pieces at most, the specials and the 256 bytes included.
        folder: is made if need be.

    Returns:
        The number of pieces, which is less than asked when the texts have no more.

    Raises:
        ValueError: the vocabulary has no room beside the specials and the bytes.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    if vocab_size < MIN_VOCAB_SIZE:
        raise ValueError(f"tokenizer.vocab_size = {vocab_size}: use at least {MIN_VOCAB_SIZE} (256 of them are bytes)")
    tokenizer = Tokenizer(models.BPE(unk_token=UNK))
    tokenizer.normalizer = normalizers.NFKC()
    # Punctuation and digits are pieces of their own: a small corpus can't show every word with every mark.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Metaspace(),
            pre_tokenizers.Punctuation("isolated"),
            pre_tokenizers.Digits(individual_digits=True),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - NUM_BYTES,
        special_tokens=[PAD, EOS, UNK],
        initial_alphabet=[SPACE],
        min_frequency=2,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer = Tokenizer.from_str(_with_bytes(tokenizer.to_str()))
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    tokenizer.post_processor = processors.TemplateProcessing(single=["$A", EOS], special_tokens=[(EOS, 1)])
    wrapped = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNK,
        model_max_length=MODEL_MAX_LENGTH,
        # Somebody's comment that holds "</s>" holds four signs, not the end of the text.
        split_special_tokens=True,
    )
    wrapped.save_pretrained(folder)
    return len(wrapped)


def _with_bytes(serialized: str) -> str:
    """Add the pieces ``<0x00>`` to ``<0xFF>``, by which a text without matching pieces is still spelled."""
    data = json.loads(serialized)
    pieces = data["model"]["vocab"]
    for byte in range(NUM_BYTES):
        pieces[f"<0x{byte:02X}>"] = len(pieces)
    data["model"]["byte_fallback"] = True
    return json.dumps(data, ensure_ascii=False)
