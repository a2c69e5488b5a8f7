"""What heads write, from weights and in runs: equal to plain loops on random models, and refusals."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from hand_set import Tokenizer
from naive import Naive
from naive_ov import naive_output, naive_value, stages
from pairs import random_pairs
from small_models import VOCABULARY, bound, random_module

from pytest_circuits.engine.runs import Runs
from pytest_circuits.errors import MeasurementError, PromptError
from pytest_circuits.roles import ov_circuit
from pytest_circuits.roles.movers import direct_of_heads
from pytest_circuits.roles.reading import every_head, read_role
from pytest_circuits.spec.components import Head

if TYPE_CHECKING:
    from pytest_circuits.checkpoints.model import BoundModel
    from pytest_circuits.prompts.encode import Encoded

NUMERALS = tuple("0123456789")
PLANTED = Head(1, 2)


@pytest.fixture(params=["gpt2", "llama"])
def random_model(request: pytest.FixtureRequest) -> BoundModel:
    return replace(bound(random_module(request.param), request.param), tokenizer=Tokenizer(NUMERALS, VOCABULARY))


def rows_of(tokens: list[int]) -> list[Encoded]:
    """Pairs whose answers and foils are these tokens, with the answer and the foil among the prompt's tokens."""
    return [
        replace(row, answer=a, foil=f, clean=(*row.clean[:2], a, f, *row.clean[4:]))
        for row, a, f in zip(random_pairs(), tokens, [*tokens[1:], tokens[0]], strict=False)
    ]


def runs_of(model: BoundModel, rows: list[Encoded], value: str = "resample") -> Runs:
    return Runs(model, rows, value=value, metric="logit_diff")  # type: ignore[arg-type]


def naive_logits(model: BoundModel, head: Head, token: int) -> list[float]:
    """The OV circuit's logits over the whole vocabulary, by the definition."""
    embed, norm, mlp, norms, final = stages(model)
    with torch.no_grad():
        value = naive_value(model, head) @ norms[head.layer](mlp(norm(embed.weight[token])))
        written = sum(w * v for w, v in zip(naive_output(model, head), value, strict=True))
        state = final(written) - final(torch.zeros_like(written))  # what it adds to every token is no head's
        return (model.module.lm_head.weight @ state).tolist()


@pytest.mark.parametrize("at_once", [7, 4096])
def test_copies_are_counted_as_in_the_naive_loop(
    random_model: BoundModel, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ov_circuit, "VOCABULARY_AT_ONCE", at_once)
    runs = runs_of(random_model, rows_of([90, 5, 17, 60, 33, 42]))
    copying, suppressing = (read_role(role, runs) for role in ("copying", "copy_suppression"))

    for head in every_head(random_model):
        order = {t: sorted(range(VOCABULARY), key=naive_logits(random_model, head, t).__getitem__) for t in TOKENS}
        assert copying[head]["answers and foils"].tolist() == [t in order[t][-5:] for t in TOKENS]
        assert suppressing[head]["answers and foils"].tolist() == [t in order[t][:10] for t in TOKENS]


TOKENS = sorted([90, 5, 17, 60, 33, 42])


@pytest.mark.parametrize(("role", "sign"), [("copying", 1), ("copy_suppression", -1)])
def test_a_planted_copy_is_found_and_a_dead_head_has_none(random_model: BoundModel, role: str, sign: int) -> None:
    embed, norm, mlp, norms, _ = stages(random_model)
    with torch.no_grad():
        values = norms[1](mlp(norm(embed.weight[TOKENS]))) @ naive_value(random_model, PLANTED).T
        goals = random_module(random_model.architecture.model_type).lm_head.weight[TOKENS]
        naive_output(random_model, PLANTED).copy_(sign * 10 * torch.linalg.pinv(values) @ (goals - goals.mean(0)))
        naive_output(random_model, Head(0, 0)).zero_()
    scores = read_role(role, runs_of(random_model, rows_of(TOKENS)))
    found = {head: named["answers and foils"].mean() for head, named in scores.items()}

    assert found[PLANTED] == 1
    assert sum(found[head] for head in found if head != PLANTED) / 11 < 0.25
    assert found[Head(0, 0)] <= 1 / 3  # what the final norm's bias says whatever the head reads


@pytest.mark.parametrize("role", ["copying", "copy_suppression"])
def test_too_few_tokens_are_refused(random_model: BoundModel, role: str) -> None:
    rows = [replace(row, answer=3 + n % 2, foil=70 + n % 2) for n, row in enumerate(random_pairs())]

    with pytest.raises(PromptError, match=f"the role {role} asks .* needs 5 different ones, found 4.\n.*more answers"):
        read_role(role, runs_of(random_model, rows))


def test_the_greater_than_bias_is_that_of_the_naive_loop(random_model: BoundModel) -> None:
    tokens = [1 + n for n in range(10)]
    for head, tasks in read_role("greater_than", runs_of(random_model, [])).items():
        assert set(tasks) == {"numerals"}
        expected = []
        for place, token in enumerate(tokens[:-1]):
            mass = torch.tensor([naive_logits(random_model, head, token)[t] for t in tokens]).softmax(0)
            expected.append(float(mass[place + 1 :].sum() - mass[: place + 1].sum()))
        assert tasks["numerals"].tolist() == pytest.approx(expected, abs=1e-4)


def test_two_digits_are_a_task_of_their_own(random_model: BoundModel) -> None:
    words = tuple(f"{n:02d}" for n in range(12))
    model = replace(random_model, tokenizer=Tokenizer(words, VOCABULARY))
    found = read_role("greater_than", runs_of(model, []))[PLANTED]

    assert {task: len(bias) for task, bias in found.items()} == {"two digits": 11}


def test_a_head_that_prefers_nothing_has_no_bias(random_model: BoundModel) -> None:
    with torch.no_grad():
        random_model.module.lm_head.weight.zero_()

    found = read_role("greater_than", runs_of(random_model, []))[PLANTED]["numerals"]
    assert found.mean() == pytest.approx(0, abs=1e-6)


def test_a_head_that_writes_nothing_has_no_bias(random_model: BoundModel) -> None:
    with torch.no_grad():
        naive_output(random_model, PLANTED).zero_()
        for name, bias in random_model.module.get_submodule(random_model.architecture.final_norm).named_parameters():
            if name == "bias":
                bias.copy_(torch.linspace(-9, 9, len(bias)))

    found = read_role("greater_than", runs_of(random_model, []))[PLANTED]["numerals"]
    assert found.mean() == pytest.approx(0, abs=1e-6)


def test_too_few_numerals_are_refused(random_model: BoundModel) -> None:
    model = replace(random_model, tokenizer=Tokenizer(NUMERALS[:9], VOCABULARY))

    with pytest.raises(PromptError, match="needs 10 numerals that are single tokens of 'random', found 9.\n.*Drop the"):
        read_role("greater_than", runs_of(model, []))


# -- in runs -----------------------------------------------------------------------------------------------------------


def naive_direct(model: BoundModel, row: Encoded, values: dict[tuple[str, int], torch.Tensor], head: Head) -> float:
    """What a head's z adds to the logit difference, the final norm's scale being that of the run: by difference."""
    _, _, _, _, final = stages(model)
    streams: list[torch.Tensor] = []
    with final.register_forward_pre_hook(lambda _, args: streams.append(args[0][0, -1])):
        Naive(model).run(row.clean)
    z = values["z", head.layer][-1, head.head * 8 : head.head * 8 + 8]
    stream, written = streams[0], z @ naive_output(model, head)
    if model.architecture.model_type == "gpt2":
        scaled = (written - written.mean()) / (stream.var(unbiased=False) + final.eps).sqrt()
    else:
        scaled = written / (stream.pow(2).mean() + final.variance_epsilon).sqrt()
    rows = model.module.lm_head.weight[[row.answer, row.foil]]
    return float((rows[0] - rows[1]) @ (scaled * final.weight))


@pytest.mark.parametrize("role", ["name_mover", "negative_mover"])
def test_direct_effects_are_those_of_the_naive_loop(random_model: BoundModel, role: str) -> None:
    rows = rows_of([90, 5, 17, 60, 33, 42])
    found = read_role(role, runs_of(random_model, rows))

    for n, row in enumerate(rows):
        with torch.no_grad():
            values = Naive(random_model).values(row.clean)
            for head in every_head(random_model):
                expected = naive_direct(random_model, row, values, head)
                assert found[head]["direct"][n] == pytest.approx(expected, abs=1e-4)


def test_heads_above_the_movers_reach_none_of_their_queries(random_model: BoundModel) -> None:
    movers = (Head(1, 0), Head(1, 3))
    path = {h: v["path"] for h, v in read_role("s_inhibition", runs_of(random_model, rows_of(TOKENS)), movers).items()}

    assert all((path[head] == 0).all() == (head.layer > 0) for head in path)


def test_paths_need_values_of_the_corrupt_run(random_model: BoundModel) -> None:
    with pytest.raises(MeasurementError, match="Write ablation.value: resample"):
        read_role("s_inhibition", runs_of(random_model, rows_of(TOKENS), "zero"), (Head(1, 0),))


def test_a_backup_without_change_is_none(random_model: BoundModel) -> None:
    """Movers of the last layer change nothing that others write, but for the scale of the final norm."""
    mover = Head(2, 1)
    rows = rows_of(TOKENS)
    runs = runs_of(random_model, rows)
    before = {head: named["direct"] for head, named in read_role("name_mover", runs).items()}
    backup = {head: named["backup"] for head, named in read_role("backup_name_mover", runs, (mover,)).items()}
    scale = (before[Head(0, 0)] + backup[Head(0, 0)]) / before[Head(0, 0)]

    for head in before:
        if head != mover:
            assert backup[head] == pytest.approx((scale - 1) * before[head], abs=1e-4)


def test_a_model_that_caps_its_logits_has_no_roles_of_direct_effects() -> None:
    model = bound(random_module("gemma2"), "gemma2")
    runs = Runs(model, random_pairs(), value="resample", metric="logit_diff")

    with pytest.raises(PromptError, match="'random' caps its logits: behind the cap nothing adds up to it"):
        direct_of_heads(runs)
