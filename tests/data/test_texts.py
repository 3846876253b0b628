"""Texts: the plays whole and cut play by play, vocabularies that lose nothing, folders that are no texts."""

from __future__ import annotations

import lzma
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbbench.data import plays
from dbbench.data.plays import PLAYS_FILE, TITLES, load_plays, split_plays
from dbbench.data.text_folder import load_text_dataset, load_text_folder
from dbbench.data.text_set import SEPARATOR, TextSet, cut, text_set
from dbbench.data.vocabulary import BytePairs, Characters
from dbbench.errors import BadInput

WHERE = "suites/mine.yaml: task"


def whole() -> str:
    """Return the embedded text, read past the loader."""
    return lzma.decompress(PLAYS_FILE.read_bytes()).decode()


def small(*documents: str) -> TextSet:
    """Return a text of whole documents in each part."""
    return text_set("small", documents, documents, documents, WHERE, source="", licence="")


def test_the_plays_are_38_and_nothing_is_lost() -> None:
    """A play would be cut in two or swallowed by its neighbour, and its last tenth not be held out."""
    text = whole()
    found = split_plays(text)
    assert len(text) == 4_957_410
    assert len(set(text)) == 81
    assert len(found) == 38
    assert SEPARATOR.join(found) == text
    titled = [play.strip().partition("\n")[0] for play in found]
    assert [line for line in titled if line in TITLES] == list(TITLES)
    (measure,) = [play for play in found if play.strip().startswith("ACT I\n")]
    assert "DUKE VINCENTIO" in measure
    assert "HELENA" not in measure


def test_each_play_gives_its_own_tail() -> None:
    """Only tragedies would be held out, or the parts would share text."""
    text, documents = load_plays(where=WHERE, validation_fraction=0.05), split_plays(whole())
    assert len(text.train) == len(text.validation) == len(text.test) == 38
    for document, train, validation, test in zip(documents, text.train, text.validation, text.test, strict=True):
        assert train + validation + test == document
        assert len(test) == round(len(document) / 10)
        assert len(validation) == pytest.approx(0.05 * 0.9 * len(document), abs=2)


@given(st.text(min_size=1, max_size=300), st.floats(0, 1), st.floats(0, 1))
def test_a_cut_is_a_partition(document: str, test_fraction: float, validation_fraction: float) -> None:
    """A character would be trained on and tested on, or dropped."""
    assert "".join(cut(document, test_fraction, validation_fraction)) == document


def test_a_damaged_file_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Other text would be trained on under the same name."""
    for body, said in ((lzma.compress(b"other words"), "sha256"), (b"torn", "damaged")):
        file = tmp_path / "plays.xz"
        file.write_bytes(body)
        monkeypatch.setattr(plays, "PLAYS_FILE", file)
        with pytest.raises(BadInput, match=said) as caught:
            load_plays(where=WHERE)
        assert str(caught.value).startswith(f"{WHERE}: {file}: ")


@given(st.text(alphabet="abc\né—", max_size=60))
def test_characters_come_back(text: str) -> None:
    """Samples would be spelt wrongly, or a character be counted as another."""
    vocabulary = Characters(small("abc\né—").characters)
    tokens = vocabulary.encode(text)
    assert vocabulary.decode(tokens) == text
    assert vocabulary.characters_per_token[tokens].sum() == len(text)


def test_an_unknown_character_is_named() -> None:
    """It would silently become its neighbour."""
    with pytest.raises(BadInput, match="'z'"):
        Characters(("a", "b")).encode("abz")


def test_byte_pairs_come_back_and_count_characters() -> None:
    """Bits per character would be divided by another number of characters than the text has."""
    text = "the cat — the café — the thé\n\nthe end\n" * 40
    vocabulary = BytePairs(text, 265, WHERE)
    other = "naïve cafés — 中文 🎭 the\tthe"
    tokens = vocabulary.encode(other)
    assert vocabulary.size == 265
    assert vocabulary.decode(tokens) == other
    assert vocabulary.characters_per_token[tokens].sum() == len(other)
    assert len(vocabulary.encode(text)) < 0.8 * len(text)
    assert np.array_equal(tokens, BytePairs(text, 265, WHERE).encode(other))


@pytest.mark.parametrize(("size", "said"), [(100, "256 bytes"), (5000, "yields")])
def test_an_impossible_vocabulary_is_refused(size: int, said: str) -> None:
    """The network would have outputs for tokens that do not exist."""
    with pytest.raises(BadInput, match=said):
        BytePairs("a few words", size, WHERE)


def test_a_folder_of_texts_is_cut_file_by_file(tmp_path: Path) -> None:
    """The order of a folder's files would depend on the file system, or a file be held out as a whole."""
    (tmp_path / "b.txt").write_text("b" * 100)
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "a.txt").write_text("a" * 1000)
    text = load_text_folder(where=WHERE, folder=str(tmp_path), test_fraction=0.2, validation_fraction=0.5)
    assert text.train == ("b" * 40, "a" * 400)
    assert text.test == ("b" * 20, "a" * 200)
    assert text.characters == ("\n", "a", "b")


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    """A traceback, or mojibake to train on."""
    with pytest.raises(BadInput, match="needs 'folder'"):
        load_text_folder(where=WHERE)
    with pytest.raises(BadInput, match=r"holds no \.txt file"):
        load_text_folder(where=WHERE, folder=str(tmp_path))
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(BadInput, match="no UTF-8 at byte 3"):
        load_text_folder(where=WHERE, folder=str(tmp_path))
    (tmp_path / "latin.txt").write_text("")
    with pytest.raises(BadInput, match="part is empty"):
        load_text_folder(where=WHERE, folder=str(tmp_path))


def test_a_corpus_of_datasets_from_a_folder(tmp_path: Path) -> None:
    """LM1B and its like could not be used, or their test rows would be trained on."""
    library = pytest.importorskip("datasets", reason="needs the extra 'data'")
    rows = {"train": [f"row {i}" for i in range(40)], "test": ["held out"]}
    splits = {name: library.Dataset.from_dict({"text": texts}) for name, texts in rows.items()}
    library.DatasetDict(splits).save_to_disk(str(tmp_path / "saved"))
    for name, split in splits.items():
        split.to_parquet(str(tmp_path / "parquet" / f"{name}-00000-of-00001.parquet"))
    for folder in ("saved", "parquet"):
        text = load_text_dataset(where=WHERE, folder=str(tmp_path / folder))
        assert text.train + text.validation == tuple(rows["train"])
        assert len(text.validation) == 2
        assert text.test == ("held out",)
    alone = load_text_dataset(where=WHERE, folder=str(tmp_path / "saved"), test_split="train")
    assert alone.test == tuple(rows["train"][-4:])
    with pytest.raises(BadInput, match="did you mean 'text'"):
        load_text_dataset(where=WHERE, folder=str(tmp_path / "saved"), column="txt")
    with pytest.raises(BadInput, match="no split 'validation'"):
        load_text_dataset(where=WHERE, folder=str(tmp_path / "saved"), test_split="validation")
