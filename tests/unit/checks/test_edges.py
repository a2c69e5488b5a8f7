"""Edges of a checkpoint beside those of the reference: what they carry, what is lost without them, each one's share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from imagined import TEMPLATES, compared, reading, spec_file

from pytest_circuits import load_spec, measure, open_checkpoint
from pytest_circuits.attribution.graph import wires_of
from pytest_circuits.checks import judge
from pytest_circuits.errors import MeasurementError
from pytest_circuits.gate.edges import of_edges
from pytest_circuits.gate.readiness import refusals
from pytest_circuits.records import EDGES_ALONE, EDGES_NONE, EDGES_OUT, Measured, Verdict

TINY = Path(__file__).parents[3] / "specs/tiny"
NAMED = ("embed -> L0H1.q", "L0H1 -> L1H2.v", "L1H2 -> logits")
SHARES = (0.9, 0.5, 0.8)


def wired(
    *, alone: float = 0.95, out: float = 0.9, shares: tuple[float, ...] = SHARES, spread: float = 0.02, **parts: Any
) -> Measured:
    """A reading whose edges carry these parts of an effect of 10 logits, from a floor of 1."""
    random = np.random.default_rng(parts.pop("seed", 0))
    prompts = 16 * len(TEMPLATES)

    def some(part: float) -> np.ndarray:
        return 11.0 - 10.0 * (part + spread * random.standard_normal(prompts))

    runs = {EDGES_ALONE: some(1 - alone), EDGES_OUT: some(out), EDGES_NONE: np.full(prompts, 1.0)}
    runs |= {name: some(share) for name, share in zip(NAMED, shares, strict=True)}
    return reading(clean=np.full(prompts, 11.0), edges=runs, **parts)


def result_of(observed: Any, reference: Any = None, **limits: Any) -> Any:
    file = spec_file({"edges": limits}, edges=NAMED)
    return judge("edges", compared(observed, reference or wired(), file=file))


def verdicts(result: Any) -> dict[tuple[str, str | None], Verdict]:
    return {(record.claim, record.component): record.verdict for record in result.records}


def test_edges_that_carry_what_they_did_pass() -> None:
    result = result_of(wired(seed=1), necessity_at_least=0.8)

    assert result.verdict is Verdict.PASS
    assert set(verdicts(result)) == {
        ("at_least", None),
        ("drift", None),
        ("necessity", None),
        ("necessity_drift", None),
        *((claim, name) for claim in ("share", "keep") for name in NAMED),
    }
    assert result.headline.startswith("edges: F of edges 0.95 -> 0.95, drift ") or "F of edges 0.95" in result.headline
    assert result.headline.endswith("(reference: builtin:imagined, 10 logits)")


def test_their_unit_is_clean_less_the_run_without_any_edge() -> None:
    """Not the floor of the circuit's parts: there the embeddings are live."""
    values = {record.claim: record.value for record in result_of(wired(spread=0.0), necessity_at_least=0.5).records}

    assert values == {
        "at_least": pytest.approx(0.95),
        "drift": pytest.approx(0.95),
        "necessity": pytest.approx(0.9),
        "necessity_drift": pytest.approx(0.9),
        "share": pytest.approx(0.8),
        "keep": pytest.approx(1.0, abs=1e-3),
    }


def test_an_edge_of_little_effect_is_missed_by_what_it_keeps() -> None:
    """Its share may fall to nothing within the limit on shares."""
    before, after = (wired(shares=(0.9, share, 0.8), spread=0.001) for share in (0.08, 0.0))

    assert {key for key, one in verdicts(result_of(after, before)).items() if one is Verdict.DRIFT} == {
        ("keep", NAMED[1])
    }
    assert result_of(before, before).verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("change", "red"),
    [
        ({"alone": 0.7}, {("at_least", None), ("drift", None)}),
        ({"alone": 0.82}, {("drift", None)}),
        ({"alone": 1.3}, {("drift", None)}),
        ({"out": 0.6}, {("necessity", None), ("necessity_drift", None)}),
        ({"shares": (0.9, 0.3, 0.8)}, {("share", NAMED[1])}),
        ({"shares": (0.9, 0.1, 0.8)}, {("share", NAMED[1]), ("keep", NAMED[1])}),
        ({"shares": (0.9, 0.7, 0.8)}, {("share", NAMED[1])}),
        ({"out": 1.3}, set()),
    ],
)
def test_what_falls_is_drift(change: dict[str, Any], red: set[tuple[str, str | None]]) -> None:
    result = result_of(wired(**change), necessity_at_least=0.8)

    assert {key for key, verdict in verdicts(result).items() if verdict is Verdict.DRIFT} == red
    assert {verdict for key, verdict in verdicts(result).items() if key not in red} == {Verdict.PASS}


def test_a_moved_share_is_told_by_its_edge() -> None:
    result = result_of(wired(shares=(0.9, 0.1, 0.8), spread=0.0), wired(spread=0.0))

    assert result.headline == (
        "edges: L0H1 -> L1H2.v share 0.50 -> 0.10, drift -0.40 [-0.40, -0.40]"
        " (templates as a sample [-0.40, -0.40]) is beyond its limit 0.1 (reference: builtin:imagined, 10 logits)"
    )


def test_of_many_red_edges_the_largest_are_told() -> None:
    names = tuple(f"embed -> L0H{head}.{kind}" for head in range(4) for kind in "qk")
    runs = dict(wired().edges)
    base = {name: runs[name] for name in (EDGES_ALONE, EDGES_OUT, EDGES_NONE)}

    def of(share: float) -> Measured:
        edges = base | {name: np.full(128, 11.0 - 10 * share * (1 + at / 10)) for at, name in enumerate(names)}
        return reading(clean=np.full(128, 11.0), edges=edges)

    result = judge("edges", compared(of(0.1), of(0.5), file=spec_file({"edges": {}}, edges=names)))

    assert len(result.details) == 5
    assert result.details[-1] == "and 11 more claims on single edges"
    assert "L0H3.k" in result.headline


def test_without_a_reference_the_value_alone_is_judged() -> None:
    file = spec_file({"edges": {"necessity_at_least": 0.8}}, edges=NAMED)
    result = judge("edges", compared(wired(), None, file=file))

    assert verdicts(result)["at_least", None] is Verdict.PASS
    assert verdicts(result)["necessity", None] is Verdict.PASS
    assert {verdicts(result)[key] for key in (("drift", None), ("share", NAMED[0]))} == {Verdict.ERROR}
    assert [result.headline, *result.details] == [
        "edges: there is no reference, so nothing can be said about drift. (no reference)",
        "  Name one with --circuits-reference, or store a baseline with --circuits-update=new.",
    ]


def test_a_lost_task_leaves_nothing_to_have_a_share_of() -> None:
    prompts = 16 * len(TEMPLATES)
    lost = wired()
    edges = dict(lost.edges) | {EDGES_NONE: np.full(prompts, 10.0)}
    result = result_of(reading(clean=np.full(prompts, 11.0), edges=edges), necessity_at_least=0.8)

    assert set(verdicts(result).values()) == {Verdict.NOT_EVALUATED}
    assert "task lost: clean - floor is 0.10" in result.headline


def test_a_run_that_is_missing_is_an_error() -> None:
    runs = {name: values for name, values in wired().edges.items() if name != EDGES_OUT}

    with pytest.raises(MeasurementError, match="expected the runs 'alone', 'out' and 'none', found alone, none"):
        of_edges(reading(edges=runs))


def test_an_edge_that_was_not_measured_cannot_pass() -> None:
    runs = {name: values for name, values in wired().edges.items() if name != NAMED[1]}

    with pytest.raises(MeasurementError, match=f"found none named {NAMED[1]}"):
        result_of(reading(clean=np.full(128, 11.0), edges=runs))


def test_a_reference_that_could_not_decide_is_refused() -> None:
    file = spec_file({"edges": {}}, edges=NAMED)

    assert refusals(file, wired()) == ()
    noisy = refusals(file, wired(spread=0.4))
    assert [sentence.partition(" is too noisy")[0] for sentence in noisy] == ["edges: drift", "edges: share"]
    unseen = refusals(file, wired(shares=(0.9, 0.0, 0.8)))
    assert all(NAMED[1] in sentence for sentence in unseen)
    assert unseen[-1].startswith(f"this prompt set cannot see {NAMED[1]}: its effect ")
    (lost,) = refusals(file, wired(alone=0.0, out=0.0, shares=(0.0, 0.0, 0.0)) and _without_effect())
    assert lost.startswith("edges: no ratio: clean - floor is ")


def test_a_circuit_of_all_edges_is_an_error(tmp_path: Path) -> None:
    model = open_checkpoint("builtin:tiny")
    wires = wires_of(model.bound)
    names = [f"{wires.senders[row]} -> {wires.receivers[column]}" for row, column in np.argwhere(wires.edges).tolist()]
    edges = "edges:\n" + "".join(f"  - {name}\n" for name in names)
    text = (TINY / "successor-edges.circuit.yaml").read_text(encoding="utf-8")
    (tmp_path / "all.circuit.yaml").write_text(text[: text.index("edges:\n")] + edges + text[text.index("claims:") :])
    (tmp_path / "successor.csv").write_text((TINY / "successor.csv").read_text(encoding="utf-8"))
    reading = measure(load_spec(tmp_path / "all.circuit.yaml", root=tmp_path), model)

    with pytest.raises(MeasurementError, match="the spec names all 479 edges of 'tiny', so its claims could not fail"):
        _ = reading.edges


def _without_effect() -> Measured:
    edges = dict(wired().edges) | {EDGES_NONE: np.full(128, 11.0)}
    return reading(clean=np.full(128, 11.0), edges=edges)
