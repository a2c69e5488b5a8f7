from __future__ import annotations

import json

import pytest
from transformers import AutoTokenizer

from pytest_circuits.builtin import builtin_directory, builtin_names
from pytest_circuits.builtin.grammar import agreement_pairs
from pytest_circuits.builtin.storage import load
from pytest_circuits.builtin.survey import by_template, logit_difference, observe, tokens_of
from pytest_circuits.builtin.vocabulary import BOS, vocabulary


@pytest.mark.parametrize("name", builtin_names())
def test_a_stored_checkpoint_holds_weights_and_json_alone(name: str) -> None:
    files = list(builtin_directory(name).iterdir())
    assert {path.suffix for path in files} == {".json", ".safetensors"}
    assert sum(path.stat().st_size for path in files) < 4 * 2**20
    assert "auto_map" not in json.loads((builtin_directory(name) / "config.json").read_text())


@pytest.mark.parametrize("name", builtin_names())
def test_the_stored_tokenizer_numbers_words_as_the_grammar_does(name: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(builtin_directory(name), local_files_only=True)
    prompt = "the dog near the tables"
    assert [tokenizer(prompt)["input_ids"]] == tokens_of([prompt]).tolist()
    assert tokenizer.convert_ids_to_tokens(list(range(len(vocabulary())))) == list(vocabulary())
    assert tokenizer.bos_token == BOS


@pytest.mark.parametrize("name", builtin_names())
def test_a_stored_checkpoint_agrees_with_the_subject_over_an_attractor(name: str) -> None:
    model = load(builtin_directory(name))
    for pairs in by_template(agreement_pairs(seed=5, per_template=4)).values():
        logits, _ = observe(model, tokens_of(pair.clean for pair in pairs))
        assert logit_difference(logits, pairs) > 3.0
