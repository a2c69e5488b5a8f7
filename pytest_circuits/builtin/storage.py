"""How a built-in checkpoint is made from nothing, written to its directory, and read back."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from pytest_circuits.builtin.vocabulary import BOS, PAD, UNKNOWN, vocabulary

if TYPE_CHECKING:
    from pathlib import Path


def new_tokenizer() -> PreTrainedTokenizerFast:
    """One token for each word of the grammar, the first token put in front of every text."""
    numbers = {word: number for number, word in enumerate(vocabulary())}
    tokenizer = Tokenizer(WordLevel(numbers, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.post_processor = TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, numbers[BOS])])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, pad_token=PAD, unk_token=UNKNOWN, model_max_length=64
    )


def new_model(seed: int, layers: int = 4) -> GPT2LMHeadModel:
    """An untrained model of the built-in size."""
    torch.manual_seed(seed)
    words = vocabulary()
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(words),
            n_positions=64,
            n_embd=128,
            n_layer=layers,
            n_head=4,
            n_inner=512,
            activation_function="gelu_pytorch_tanh",
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=words.index(BOS),
            eos_token_id=None,
            pad_token_id=words.index(PAD),
            attn_implementation="eager",
        )
    )


def save(model: GPT2LMHeadModel, directory: Path) -> None:
    """Write the weights as float16, with the tokenizer; the files are readable by all."""
    copy.deepcopy(model).half().save_pretrained(directory)
    new_tokenizer().save_pretrained(directory)
    settings = directory / "tokenizer_config.json"
    named = {**json.loads(settings.read_text()), "tokenizer_class": "PreTrainedTokenizerFast"}
    settings.write_text(json.dumps(named, indent=2, sort_keys=True) + "\n")
    for path in directory.iterdir():
        path.chmod(0o644)


def load(directory: Path) -> GPT2LMHeadModel:
    """The stored checkpoint, computing in float32."""
    model: GPT2LMHeadModel = GPT2LMHeadModel.from_pretrained(
        directory, dtype=torch.float32, local_files_only=True, attn_implementation="eager"
    )
    return model.eval()
