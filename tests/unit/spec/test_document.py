"""What is refused in the text of a spec before anything is asked of its meaning."""

from __future__ import annotations

import pytest
import yaml

from pytest_circuits.spec.document import DEEPEST, LARGEST_FILE, read_document


def problems(text: str | bytes) -> list[str]:
    raw = text if isinstance(text, bytes) else text.encode()
    return [str(problem) for problem in read_document(raw, "a.yaml").problems]


def as_lists(data: object) -> object:
    if isinstance(data, tuple):
        return [as_lists(item) for item in data]
    if isinstance(data, dict):
        return {key: as_lists(value) for key, value in data.items()}
    return data


def test_a_good_spec_reads_as_pyyaml_reads_it(good: str) -> None:
    document = read_document(good.encode(), "a.yaml")

    assert document.problems == []
    assert as_lists(document.data) == yaml.safe_load(good)


def test_every_key_and_item_knows_its_line_and_column(good: str) -> None:
    document = read_document(good.encode(), "a.yaml")
    lines = good.split("\n")

    for path, place in document.keys.items():
        assert lines[place.line - 1][place.column - 1 :].startswith(str(path[-1]))
    assert document.values["circuit", "number_mover", "heads", 1] == ("a.yaml", 19, 32)


def test_columns_count_characters_and_not_bytes() -> None:
    assert problems("äöü: *x") == ["a.yaml:1:6: äöü: aliases are not allowed: write out what *x stands for"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: &x 1", "a.yaml:1:4: a: anchors are not allowed: remove &x"),
        ("a: &x [1]", "a.yaml:1:4: a: anchors are not allowed: remove &x"),
        ("&x a: 1", "a.yaml:1:1: anchors and tags are not allowed: remove them from the key 'a'"),
        ("a: !!str 1", "a.yaml:1:4: a: tags are not allowed: remove 'tag:yaml.org,2002:str'"),
        ("a: !!python/name:os.system x", "a.yaml:1:4: a: tags are not allowed: remove 'tag:yaml.org,2002:python/name"),
        ("a: !x {b: 1}", "a.yaml:1:4: a: tags are not allowed: remove '!x'"),
        ("a: {<<: {b: 1}}", "a.yaml:1:5: a: merge keys (<<) are not allowed: write out the keys"),
        ("a: 1\nb: 2\na: 3", "a.yaml:3:1: a: this key is already given in line 1; remove one of the two"),
        ("x: {a: 1, a: 1}", "a.yaml:1:11: x.a: this key is already given in line 1; remove one of the two"),
        ("a: 1\n---\nb: 1", "a.yaml:2:1: a second document begins here; a file holds one circuit, in one document"),
        ("a: .inf", "a.yaml:1:4: a: numbers must be finite, found .inf"),
        ("a: [-.Inf]", "a.yaml:1:5: a.0: numbers must be finite, found -.Inf"),
        ("a: .nan", "a.yaml:1:4: a: numbers must be finite, found .nan"),
        ("a: 1.0e+999", "a.yaml:1:4: a: numbers must be finite, found 1.0e+999"),
        ("no: 1", 'a.yaml:1:1: the key `no` is read by YAML as false; write "no" in quotes'),
        ("12: 1", 'a.yaml:1:1: the key `12` is read by YAML as the number 12; write "12" in quotes'),
        ("~: 1", 'a.yaml:1:1: the key `~` is read by YAML as nothing; write "~" in quotes'),
        ("[a]: 1", "a.yaml:1:1: a key must be a text, found a list, a mapping or an alias"),
        ("", "a.yaml:1:1: the file is empty"),
        ("# only a comment\n", "the file is empty"),
        ("a: [1", "this is not YAML: while parsing a flow sequence did not find expected ',' or ']'"),
        ("a: 'x", "this is not YAML: while scanning a quoted scalar found unexpected end of stream"),
        ("a: x\nb: \x01", "a.yaml:2:4: this is not YAML: the character '\\x01' is not allowed"),
        (b"a: 1\nb: \xff", "a.yaml:2:4: the file is not UTF-8: byte 0xff"),
        ("a: x".encode("utf-16"), "a.yaml:1:1: the file is not UTF-8: byte 0xff"),
    ],
)
def test_what_makes_a_text_unclear_is_refused_with_its_place(text: str | bytes, expected: str) -> None:
    found = problems(text)

    assert len(found) == 1
    assert expected in found[0]


def test_a_key_that_is_no_plain_word_is_shown_by_its_repr() -> None:
    assert problems('"\\e[31m::error": *x') == [
        "a.yaml:1:18: '\\x1b[31m::error': aliases are not allowed: write out what *x stands for"
    ]


def test_an_alias_bomb_is_refused_without_being_walked() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]

    assert len(problems("\n".join(lines))) == 9 + 8 * 9


@pytest.mark.parametrize("opening", ["[", "{a: "])
def test_deep_nesting_is_refused_before_it_can_exhaust_the_stack(opening: str) -> None:
    (found,) = problems("a: " + opening * 500)
    assert f"lists and mappings lie more than {DEEPEST} deep here; no spec needs that" in found

    (found,) = problems("a: " + opening * 30_000)  # a parser with a limit of its own may be the first to refuse
    assert " deep here; no spec needs that" in found or "exceeded maximum nesting depth" in found


def test_the_deepest_nesting_that_is_allowed_is_read() -> None:
    assert problems("[" * DEEPEST + "]" * DEEPEST) == []
    assert len(problems("[" * (DEEPEST + 1) + "]" * (DEEPEST + 1))) == 1


def test_a_file_over_the_limit_is_refused_and_one_at_the_limit_is_read() -> None:
    assert problems("a: " + "x" * (LARGEST_FILE - 3)) == []
    assert problems("a: " + "x" * (LARGEST_FILE - 2)) == [
        f"a.yaml:1:1: the file has more than {LARGEST_FILE} bytes; no spec needs that"
    ]


def test_a_byte_order_mark_does_not_move_the_columns() -> None:
    assert problems(b"\xef\xbb\xbfa: *x") == ["a.yaml:1:4: a: aliases are not allowed: write out what *x stands for"]


@pytest.mark.parametrize("text", ["0b_", "0x_", "9" * 5000])
def test_a_number_that_python_cannot_build_is_text_and_no_crash(text: str) -> None:
    assert read_document(f"a: {text}".encode(), "a.yaml").data == {"a": text}


@pytest.mark.parametrize("text", ["2024-01-31", "2024-01-32"])
def test_a_date_is_text(text: str) -> None:
    assert read_document(f"a: {text}".encode(), "a.yaml").data == {"a": text}
