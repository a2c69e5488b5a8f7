"""What a user types becomes a name and a source."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_circuits.checkpoints.naming import Checkpoint, parse_checkpoint, refuse_clashes
from pytest_circuits.errors import UsageProblem

NOWHERE = Path("/nowhere")


@pytest.mark.parametrize(
    ("text", "name", "source"),
    [
        ("builtin:tiny", "tiny", "builtin:tiny"),
        ("base=builtin:tiny", "base", "builtin:tiny"),
        ("gpt2", "gpt2", "gpt2"),
        ("EleutherAI/pythia-70m", "pythia-70m", "EleutherAI/pythia-70m"),
        ("gpt2@607a30d", "gpt2", "gpt2@607a30d"),
        ("org/model@refs/pr/1", "model", "org/model@refs/pr/1"),
        ("old=org/model@main", "old", "org/model@main"),
        ("tuned=./out/step-1000", "tuned", "./out/step-1000"),
        ("./out/step-1000/", "step-1000", "./out/step-1000/"),
        ("x=a=b", "x", "a=b"),
    ],
)
def test_a_name_is_what_stands_before_the_equals_sign_or_the_last_part_of_the_path(text, name, source):
    assert parse_checkpoint(text, folder=NOWHERE) == Checkpoint(name, source)


def test_an_existing_directory_is_resolved_against_the_folder_and_wins_over_a_hub_id(tmp_path):
    (tmp_path / "org" / "model").mkdir(parents=True)

    assert parse_checkpoint("org/model", folder=tmp_path) == Checkpoint("model", str(tmp_path / "org" / "model"))
    assert parse_checkpoint("x=./org/model/", folder=tmp_path) == Checkpoint("x", str(tmp_path / "org" / "model"))
    assert parse_checkpoint("org/model", folder=NOWHERE).source == "org/model"


def test_a_builtin_checkpoint_wins_over_a_directory(tmp_path):
    (tmp_path / "builtin:tiny").mkdir()

    assert parse_checkpoint("builtin:tiny", folder=tmp_path) == Checkpoint("tiny", "builtin:tiny")


def test_an_absolute_directory_stays_where_it_is(tmp_path):
    assert parse_checkpoint(str(tmp_path), folder=NOWHERE).source == str(tmp_path)


def test_the_current_folder_takes_its_own_name_and_a_link_keeps_the_name_that_was_typed(tmp_path):
    inside = tmp_path / "step-5"
    inside.mkdir()
    (tmp_path / "latest").symlink_to(inside)

    assert parse_checkpoint(".", folder=inside) == Checkpoint("step-5", str(inside))
    assert parse_checkpoint("../step-5/.", folder=inside) == Checkpoint("step-5", str(inside))
    assert parse_checkpoint("latest", folder=tmp_path) == Checkpoint("latest", str(tmp_path / "latest"))


@pytest.mark.parametrize("directory", ["base+adapter", "model@v2"])
def test_plus_and_at_in_the_name_of_an_existing_directory_are_letters_like_others(tmp_path, directory):
    (tmp_path / directory).mkdir()

    assert parse_checkpoint(f"tuned=./{directory}", folder=tmp_path).source == str(tmp_path / directory)


def test_the_name_of_an_existing_directory_is_not_cut_at_its_at_sign(tmp_path):
    (tmp_path / "model@v2").mkdir()

    with pytest.raises(UsageProblem, match="'model@v2' .* cannot name a checkpoint"):
        parse_checkpoint("model@v2", folder=tmp_path)


def test_an_equals_sign_after_a_slash_belongs_to_the_path(tmp_path):
    (tmp_path / "lr=0.1" / "step-9").mkdir(parents=True)

    checkpoint = parse_checkpoint("./lr=0.1/step-9", folder=tmp_path)

    assert checkpoint == Checkpoint("step-9", str(tmp_path / "lr=0.1" / "step-9"))


@pytest.mark.parametrize("text", ["./base+./adapter", "tuned=org/base+org/adapter", "builtin:tiny+./adapter"])
def test_an_adapter_on_its_base_is_refused_with_the_way_round(text):
    with pytest.raises(
        UsageProblem, match=r"adapter on its base, which is not supported yet; merge .*`merge_and_unload`"
    ):
        parse_checkpoint(text, folder=NOWHERE)


@pytest.mark.parametrize("text", ["", "tuned="])
def test_a_name_without_a_source_is_refused(text):
    with pytest.raises(UsageProblem, match=rf"'{text}' names no checkpoint.*tuned=\./out/step-1000"):
        parse_checkpoint(text, folder=NOWHERE)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("my model=./out", "my model"),
        ("=./out", ""),
        ("-x=./out", "-x"),
        ("a:b=./out", "a:b"),
        ("tünd=./out", "tünd"),
        ("./out/.hidden", ".hidden"),
        ("out (1)", "out (1)"),
        ("builtin:", ""),
        ("tuned\n=./out", "tuned\n"),
    ],
)
def test_a_name_that_fits_no_pattern_is_refused_and_shows_how_to_write_one(text, name):
    with pytest.raises(UsageProblem) as caught:
        parse_checkpoint(text, folder=NOWHERE)

    assert str(caught.value).startswith(f"{name!r} (in {text!r}) cannot name a checkpoint")
    assert str(caught.value).endswith("Name it: tuned=./out/step-1000.")


@pytest.mark.parametrize(("one", "other"), [("tuned", "tuned"), ("tuned", "Tuned")])
def test_two_checkpoints_of_one_name_are_refused_letter_case_aside(one, other):
    checkpoints = [Checkpoint("base", "gpt2"), Checkpoint(one, "/out/1"), Checkpoint(other, "/out/2")]

    with pytest.raises(UsageProblem, match=rf"{one} \('/out/1'\) and {other} \('/out/2'\).*Name one of them: tuned="):
        refuse_clashes(checkpoints)


def test_different_names_do_not_clash():
    refuse_clashes([Checkpoint("gpt2", "gpt2"), Checkpoint("gpt2-xl", "gpt2-xl")])
