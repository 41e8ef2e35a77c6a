"""Rewrites comments with the model in this folder; needs only the packages ctranslate2 and tokenizers.

    pip install -r requirements.txt
    python detoxify.py "a comment" "another one"
    python detoxify.py < comments.txt > rewritten.txt

One comment a line, one line out for each: empty where nothing could be written. --json says what became of each, and
names those that a person should look at ("flagged").
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import ctranslate2
import tokenizers

from jobs.blocklist import Blocklist
from jobs.text import Segment, is_same_text, join, segment

SETTINGS = "settings.json"
LINES_IN_CALL = 256
"""Read and rewritten together; the engine sorts them by length."""
BATCH_SIZE = 32
MAX_CHARACTERS = 100_000
MAX_RETRIES = 5
"""As in ``jobs.generation``."""
CENSORED = "blocked phrase removed after decoding"

Outcome = dict[str, Any]


def main(arguments: Sequence[str], lines: Iterable[str]) -> int:
    """Rewrite the comments among ``arguments``, or else ``lines``."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("comments", nargs="*", help="comments; lines of standard input when left out")
    parser.add_argument("--json", action="store_true", help="write one object a line: text, status, reason")
    parser.add_argument("--threads", type=int, default=min(4, os.cpu_count() or 1), help="CPU threads")
    asked = parser.parse_args(arguments)
    detoxifier = Detoxifier(Path(__file__).resolve().parent, num_threads=asked.threads)
    comments = iter(asked.comments or (line.rstrip("\r\n") for line in lines))
    while part := list(islice(comments, LINES_IN_CALL)):
        for outcome in detoxifier.rewrite(part):
            # A comment among the arguments may have lines; what comes out is one.
            line = (
                json.dumps(outcome, ensure_ascii=False) if asked.json else " ".join((outcome["text"] or "").split("\n"))
            )
            sys.stdout.write(line + "\n")
        sys.stdout.flush()
    return 0


@dataclass
class Row:
    """What was decoded for one segment so far."""

    tokens: list[str]
    blocklist: Blocklist
    """The phrases that its comment doesn't hold."""
    suppressed: frozenset[tuple[str, ...]] = frozenset()
    output: list[str] | None = None
    """The best output without a phrase."""
    blocked: list[list[str]] = field(default_factory=list)
    """Outputs of the last time that hold one."""


class Detoxifier:
    """The model of one folder."""

    def __init__(self, folder: Path, *, num_threads: int) -> None:
        self._settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        self._tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._special = re.compile("|".join(map(re.escape, self._settings["special_tokens"])))
        self._forms = {phrase: frozenset(map(tuple, forms)) for phrase, forms in self._settings["blocklist"].items()}
        self._blocklist = Blocklist(list(self._forms))
        self._translator = ctranslate2.Translator(
            str(folder / "model"), device="cpu", inter_threads=1, intra_threads=num_threads
        )

    def rewrite(self, comments: Sequence[str]) -> list[Outcome]:
        """One outcome for each comment, in order: text (None where there is none), status and reason."""
        blocklists = [self._blocklist.not_in(comment) for comment in comments]
        planned = [self._plan(comment) for comment in comments]
        wanted = {
            (part.text, blocklist): Row(self._encode(self._settings["prefix"] + part.text).tokens, blocklist)
            for parts, blocklist in zip(planned, blocklists, strict=True)
            for part in parts
            if part.is_rewritten
        }
        self._decode(list(wanted.values()))
        outputs = {key: self._finish(row) for key, row in wanted.items()}
        return [
            self._assemble(comment, parts, {key[0]: written for key, written in outputs.items() if key[1] == blocklist})
            for comment, parts, blocklist in zip(comments, planned, blocklists, strict=True)
        ]

    def _plan(self, comment: str) -> list[Segment]:
        if not comment.strip() or _why_not(comment) is not None:
            return []
        return segment(comment, fits=self._fits, by_sentence=self._settings["segments"] == "sentence")

    def _assemble(self, comment: str, parts: Sequence[Segment], outputs: dict[str, tuple[str, str | None]]) -> Outcome:
        if not comment.strip():
            return {"text": comment, "status": "passed", "reason": None}
        if (reason := _why_not(comment)) is not None:
            return {"text": None, "status": "quarantined", "reason": reason}
        own = {part.text: outputs[part.text] for part in parts if part.is_rewritten}
        reasons = [reason for _, reason in own.values() if reason is not None]
        joined = join(parts, {key: text for key, (text, _) in own.items()})
        # Two segments may each be free of a phrase that stands across their border.
        if (blocklist := self._blocklist.not_in(comment)).is_in(joined):
            joined = blocklist.remove(joined)
            reasons.append(CENSORED)
        if not joined.strip() or not all(text.strip() for text, _ in own.values()):
            return {"text": None, "status": "quarantined", "reason": "empty output"}
        if reasons:
            return {"text": joined, "status": "flagged", "reason": reasons[0]}
        if is_same_text(joined, comment):
            return {"text": comment, "status": "unchanged", "reason": None}
        return {"text": joined, "status": "rewritten", "reason": None}

    def _decode(self, rows: Sequence[Row]) -> None:
        """Give each row its best output without a phrase, with more and more suppressed where there is none."""
        for _ in range(1 + MAX_RETRIES):
            groups: dict[frozenset[tuple[str, ...]], list[Row]] = {}
            for row in rows:
                groups.setdefault(row.suppressed, []).append(row)
            for suppressed, group in groups.items():
                found = self._translate([row.tokens for row in group], suppressed)
                for row, hypotheses in zip(group, found, strict=True):
                    self._choose(row, hypotheses)
            rows = [row for row in rows if row.output is None and self._suppress_more(row)]

    def _choose(self, row: Row, hypotheses: list[list[str]]) -> None:
        row.blocked = []
        for tokens in hypotheses:
            text = self._text(tokens)
            if row.blocklist.is_in(text):
                row.blocked.append(tokens)
            elif text.strip() or not row.blocked:
                row.output = tokens
                return

    def _suppress_more(self, row: Row) -> bool:
        """Add what writes the phrases that this row wrote, the likely tokens first; False where nothing is added."""
        before = row.suppressed
        for tokens in row.blocked:
            for phrase in row.blocklist.written_in(self._text(tokens)):
                row.suppressed |= self._forms[phrase]
        if row.suppressed == before:
            for tokens in row.blocked:
                windows = row.blocklist.windows(self._ids(tokens), self._tokenizer.decode)
                row.suppressed |= {tuple(self._tokenizer.id_to_token(one) or "" for one in ids) for ids in windows}
        return row.suppressed != before

    def _finish(self, row: Row) -> tuple[str, str | None]:
        """The text of a row, and what is wrong with it."""
        if row.output is None:
            return row.blocklist.remove(self._text(row.blocked[0])), CENSORED
        text = self._text(row.output)
        if self._settings["end_token"] not in row.output:
            return text, "output reached decoding.max_new_tokens"
        return text, "output holds bytes that make no character" if "\ufffd" in text else None

    def _translate(self, inputs: list[list[str]], suppressed: frozenset[tuple[str, ...]]) -> list[list[list[str]]]:
        decoding = self._settings["decoding"]
        results = self._translator.translate_batch(
            inputs,
            max_batch_size=BATCH_SIZE,
            batch_type="examples",
            num_hypotheses=decoding["beam_size"] if self._forms else 1,
            suppress_sequences=[list(tokens) for tokens in sorted({*suppressed, (self._settings["pad_token"],)})],
            max_input_length=0,
            return_end_token=True,
            **decoding,
        )
        return [result.hypotheses for result in results]

    def _fits(self, text: str) -> bool:
        if len(self._encode(self._settings["prefix"] + text)) > self._settings["max_length"]:
            return False
        return bool(len(self._encode(text)) <= self._settings["decoding"]["max_decoding_length"])

    def _encode(self, text: str) -> tokenizers.Encoding:
        """With the end token; a special token that stands in a comment as text is broken by a space."""
        return self._tokenizer.encode(self._special.sub(lambda match: f"{match[0][0]} {match[0][1:]}", text))

    def _text(self, tokens: Sequence[str]) -> str:
        text: str = self._tokenizer.decode(self._ids(tokens))
        return text

    def _ids(self, tokens: Sequence[str]) -> list[int]:
        return [self._tokenizer.token_to_id(token) or 0 for token in tokens]


def _why_not(comment: str) -> str | None:
    """Why a comment can't be rewritten; None where it can."""
    if len(comment) > MAX_CHARACTERS:
        return f"longer than {MAX_CHARACTERS} characters"
    # A byte that is no UTF-8 is read as half of a surrogate pair.
    return "not valid Unicode" if any("\ud800" <= char <= "\udfff" for char in comment) else None


if __name__ == "__main__":
    sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape", newline="\n")  # type: ignore[union-attr]
    sys.stdout.reconfigure(encoding="utf-8", newline="\n")  # type: ignore[union-attr]
    sys.exit(main(sys.argv[1:], sys.stdin))
