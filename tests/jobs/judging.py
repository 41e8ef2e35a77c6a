"""Tiny real judges for tests, and hand-written ones whose scores can be read off the text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from tokenizers import ByteLevelBPETokenizer, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    AlbertConfig,
    AlbertModel,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
    RobertaTokenizer,
)

from jobs.judges.content import ContentJudge
from jobs.metrics import Values

TEXTS = (
    "you are a silly goose",
    "you are not very clever",
    "this plan is rather bad, go home now",
    "the plan could be better",
    "Go home!",
    "a road, a house; and my lunch",
)
ProblemType = Literal["single_label_classification", "multi_label_classification"]
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


def word_tokenizer(folder: Path) -> Path:
    """Words and marks in lower case, between [CLS] and [SEP]; what it doesn't know is [UNK]."""
    vocabulary = list(SPECIAL) + sorted({word for text in TEXTS for word in text.lower().split()} | set(",;!?."))
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(vocabulary)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=32,
    ).save_pretrained(folder)
    return folder


def encoder_folder(folder: Path, *, kind: str = "bert", layers: int = 3) -> Path:
    """A random encoder of 16 dimensions with a tokenizer."""
    torch.manual_seed(5)
    size: dict[str, Any] = {"vocab_size": 64, "max_position_embeddings": 40}
    wide: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": layers, "num_attention_heads": 2}
    model: Any
    if kind == "bert":
        model = BertModel(BertConfig(**size, **wide, intermediate_size=32, initializer_range=0.5))
    elif kind == "albert":
        model = AlbertModel(
            AlbertConfig(**size, **wide, intermediate_size=32, embedding_size=8, initializer_range=0.5, pad_token_id=0)
        )
    else:
        assert kind == "distilbert"
        model = DistilBertModel(
            DistilBertConfig(**size, dim=16, hidden_dim=32, n_layers=layers, n_heads=2, initializer_range=0.5)
        )
    model.save_pretrained(folder)
    return word_tokenizer(folder)


def roberta_folder(folder: Path) -> Path:
    """A random RoBERTa whose pieces know whether a space stood before them."""
    folder.mkdir(parents=True)
    pieces = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    pieces.train_from_iterator(TEXTS * 4, vocab_size=400, special_tokens=special, show_progress=False)
    pieces.save_model(str(folder))
    tokenizer = RobertaTokenizer.from_pretrained(folder)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(6)
    config = RobertaConfig(
        vocab_size=400, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=40
    )
    model: Any = RobertaModel(config)
    model.save_pretrained(folder)
    return folder


def classifier_folder(folder: Path, labels: Sequence[str], *, problem_type: ProblemType | None = None) -> Path:
    """A random classifier with these labels."""
    torch.manual_seed(7)
    config = BertConfig(
        vocab_size=64,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=40,
        initializer_range=0.5,
        id2label=dict(enumerate(labels)),
        problem_type=problem_type,
    )
    model: Any = BertForSequenceClassification(config)
    model.save_pretrained(folder)
    return word_tokenizer(folder)


def language_model_folder(folder: Path, *, seed: int = 8) -> Path:
    """A random GPT-2 with a byte-level tokenizer."""
    pieces = ByteLevelBPETokenizer()
    pieces.train_from_iterator(TEXTS, vocab_size=300, special_tokens=["<|endoftext|>"], show_progress=False)
    tokenizer: Any = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=pieces._tokenizer, bos_token="<|endoftext|>", eos_token="<|endoftext|>"
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
    config = GPT2Config(vocab_size=300, n_embd=16, n_layer=1, n_head=2, n_positions=48, bos_token_id=0, eos_token_id=0)
    config.initializer_range = 0.3
    model: Any = GPT2LMHeadModel(config)
    model.save_pretrained(folder)
    return folder


class WordStyle:
    """P(toxic) is the share of rude words."""

    name, identity = "share of rude words", "1"

    def __init__(self, *rude: str) -> None:
        self.asked: list[str] = []
        self._rude = rude

    def toxicity(self, texts: Sequence[str]) -> Values:
        self.asked += texts
        return np.array([np.mean([word in self._rude for word in text.split()] or [False]) for text in texts])


class WordContent(ContentJudge):
    """The share of words in common (Jaccard)."""

    def __init__(self) -> None:
        self.name, self.identity, self.num_layers, self.baseline = "words in common", "1", 1, 0.0
        self.asked: list[tuple[str, str]] = []

    def score(self, candidates: Sequence[str], others: Sequence[str]) -> Values:
        pairs = list(zip(candidates, others, strict=True))
        self.asked += pairs
        sets = [(set(one.split()), set(other.split())) for one, other in pairs]
        return np.array([len(one & other) / len(one | other) if one | other else 0.0 for one, other in sets])
