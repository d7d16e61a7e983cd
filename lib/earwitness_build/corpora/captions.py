"""Captions as the code of arXiv 2512.09654 processes them, where NLTK and its data are there, and near them elsewhere.

As coded: split into words and tagged by part of speech; English stop words, punctuation marks and pure digits are
dropped as they stand (case is kept, so a capital "A" stays); every word is lemmatised by its tag (adjective, verb,
noun, adverb; everything else as a noun); joined by blanks. This package ships no tagger and no data of NLTK's.

Near it: words are runs of letters; stop words are scikit-learn's English list, as they stand; a plural s goes. Cards of
corpora say ``captions: approximate`` then, and nothing calls such captions the paper's.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from earwitness.util import digest, file_hash

EXACT, APPROXIMATE = "exact", "approximate"
DATA = ("tokenizers/punkt_tab", "taggers/averaged_perceptron_tagger_eng", "corpora/wordnet", "corpora/stopwords")
TAGS = {"J": "a", "V": "v", "N": "n", "R": "r"}  # first letter of a tag -> WordNet's
PLURAL = re.compile(r"(?<=[a-z]{2}[^isu\W])s$")  # dogs, noises; not bus, grass, hiss


def processed(captions: Sequence[str]) -> tuple[list[str], str, list[str]]:
    """Return captions, whether they are exact, and notes for a card.

    Returns
    -------
    list of str
        One per caption; empty where every word was dropped.
    str
        ``"exact"`` or ``"approximate"``.
    list of str
        Exact: the version of NLTK and the hashes of its data. Approximate: what is missing.
    """
    try:
        nltk: Any = import_module("nltk")
        held = {name: _hash(nltk, name) for name in DATA}
    except (ImportError, LookupError) as error:
        lacking = str(getattr(error, "name", "") or "").strip() or "data of NLTK"
        note = f"captions are approximate: {lacking} is not here, so words were cleaned by rules and never tagged"
        return [_near(text) for text in captions], APPROXIMATE, [note]
    exact = _exact(nltk)
    note = f"captions are those of NLTK {nltk.__version__} with " + ", ".join(f"{k} {v[:16]}" for k, v in held.items())
    return [exact(text) for text in captions], EXACT, [note]


def _hash(nltk: Any, name: str) -> str:
    """Return the SHA-256 of one of NLTK's packages, a zip archive or a folder; LookupError where it is not there."""
    for variant in (name, f"{name}.zip"):
        try:
            found = nltk.data.find(variant)
        except LookupError:
            continue
        path = Path(getattr(getattr(found, "zipfile", None), "filename", None) or str(found))
        if path.is_dir():
            return digest(
                [[p.relative_to(path).as_posix(), file_hash(p)] for p in sorted(path.rglob("*")) if p.is_file()]
            )
        return file_hash(path)
    error = LookupError(name)
    error.name = f"NLTK's {name}"  # type: ignore[attr-defined]
    raise error


def _exact(nltk: Any) -> Any:
    """Return the processing of one caption by NLTK."""
    stop = set(import_module("nltk.corpus").stopwords.words("english"))
    lemmatiser = import_module("nltk.stem").WordNetLemmatizer()
    tokenise, tag = import_module("nltk.tokenize").word_tokenize, import_module("nltk").pos_tag

    def process(text: str) -> str:
        words = [(w, t) for w, t in tag(tokenise(text)) if w not in stop and w not in string.punctuation]
        return " ".join(lemmatiser.lemmatize(w, TAGS.get(t[:1], "n")) for w, t in words if not w.isdigit())

    return process


def _near(text: str) -> str:
    """Return a caption cleaned by rules."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS  # a second to import, and one builder needs it

    words = re.findall(r"[A-Za-z]+(?:-[A-Za-z]+)*", re.sub(r"(?<=[A-Za-z])'s\b", "", text))
    return " ".join(PLURAL.sub("", word) for word in words if word not in ENGLISH_STOP_WORDS)
