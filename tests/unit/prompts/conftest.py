"""Specs and tokenizers to ask prompts of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from pytest_circuits.errors import PromptError
from pytest_circuits.prompts.pairs import pairs_of
from pytest_circuits.spec.loader import SpecFile, load_spec

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_circuits.prompts.pair import PromptSet

HEAD = "format: 1\nmodel: {checkpoint: c, architecture: gpt2, layers: 4, heads: 4}\nclaims: {behaviour: }\n"
WORDS = (
    "the dog dogs author authors key keys table tables lamp lamps near behind beside is was are were it an a one two ."
).split()


class Project:
    """A folder with a spec of the given prompts."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def load(self, prompts: str, *, rest: str = "") -> SpecFile:
        path = self.root / "specs" / "a.circuit.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{HEAD}prompts:\n{prompts}\n{rest}")
        return load_spec(path, root=self.root)

    def draw(self, prompts: str, *, rest: str = "") -> PromptSet:
        return pairs_of(self.load(prompts, rest=rest))

    def file(self, contents: str | bytes, name: str = "p.csv", *, rest: str = "") -> PromptSet:
        path = self.root / "specs" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(contents if isinstance(contents, bytes) else contents.encode())
        return self.draw(f"  file: {name}", rest=rest)

    def problems(self, contents: str | bytes, name: str = "p.csv", *, rest: str = "") -> list[str]:
        with pytest.raises(PromptError) as caught:
            self.file(contents, name, rest=rest)
        return str(caught.value).split("\n")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def word_tokenizer(*, adds: str = "", bos: str | None = "<bos>") -> PreTrainedTokenizerFast:
    """A word-level tokenizer that puts `adds` around a text when it adds special tokens, such as `<bos> $A`.

    Words are lower case and split at spaces; `keys` is two tokens, `keys` and `.`, where it stands as `keys.`.
    """
    vocabulary = {word: index for index, word in enumerate(["<unk>", "<bos>", "<eos>", *WORDS])}
    core = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = Split(" ", "removed")
    if adds:
        specials = [(word, vocabulary[word]) for word in ("<bos>", "<eos>")]
        core.post_processor = TemplateProcessing(single=adds, special_tokens=specials)
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", bos_token=bos)


@pytest.fixture
def words() -> PreTrainedTokenizerFast:
    return word_tokenizer()
