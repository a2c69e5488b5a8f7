"""What became of the heads, in words: lost, took over, joined, weaker; and whether the behaviour is the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..errors import plain
from ..gate.limits import accuracy_at_least, loss_at_most
from ..gate.statements import ShareAtLeast
from ..records import SEVERITY, Record, Verdict, worst
from .behaviour import loss
from .case import Claim, decimals, interval_of

if TYPE_CHECKING:
    from ..gate.effects import Effects
    from ..spec.schema import Spec
    from .case import Case

HeadRecords = Mapping[str, Record]
"""The records of one head by their claim; of its templates the worst."""

STATED = ("share", "strength", "keep", "template")
"""Of the red records of a head the first of these is told."""
MOST_LINES = 12
HALF = 0.5
"""A head that keeps this part of its effect or more is not lost."""


def tell(case: Case, reference: Effects, records: Sequence[Record]) -> tuple[str, tuple[str, ...]]:
    """Return the headline's words and the lines below it, from the records of a heads check."""
    heads = _by_head(records)
    verdict = worst([record.verdict for record in records])
    left = {name: claims for name, claims in heads.items() if _worst(claims) is verdict}
    count = f"{len(left)} of {len(heads)} heads"
    if verdict is Verdict.PASS:
        return f"all {len(heads)} heads are inside their limits", tuple(_stronger(heads))
    summary = {
        Verdict.DRIFT: f"{count} left their limits",
        Verdict.INCONCLUSIVE: f"{count} are undecided",
        Verdict.NOT_EVALUATED: f"{count} have no share that means anything",
        Verdict.ERROR: f"{count} could not be judged",
    }
    lines = [
        *_table(case.comparison.file.spec, heads),
        *_messages(records, heads),
        *_together(heads),
        *_behaviour(case, reference, heads),
    ]
    return summary[verdict], tuple(lines)


def _by_head(records: Sequence[Record]) -> dict[str, dict[str, Record]]:
    heads: dict[str, dict[str, Record]] = {}
    for record in records:
        claims = heads.setdefault(record.component or "", {})
        claims[record.claim] = max(claims.get(record.claim, record), record, key=lambda r: SEVERITY.index(r.verdict))
    return heads


def _worst(claims: HeadRecords) -> Verdict:
    return worst([record.verdict for record in claims.values()])


def _broken(claims: HeadRecords) -> list[Record]:
    """Return a head's records that left their limits, the one to tell first."""
    return [claims[name] for name in STATED if name in claims and claims[name].verdict is Verdict.DRIFT]


# -- one head ----------------------------------------------------------------------------------------------------------


def fate(claims: HeadRecords, *, another_lost: bool) -> str:
    """Return what became of a head that left its limits.

    Lost needs share and strength fallen, the strength by half; took over and joined need both risen, each by more than
    a share may move: when one head goes, the shares of all others rise in what is left of the effect. A head whose
    effect was not against the task and now is has turned against it, and takes nothing over.
    """
    broken = {record.claim for record in _broken(claims)}
    share, strength = claims["share"], claims["strength"]
    limit, unjudged = share.limit or 0.0, share.verdict is Verdict.NOT_EVALUATED
    if _against(strength, limit) and (unjudged or _against(share, limit)):
        return "turned against the task"
    if unjudged or not broken & {"share", "keep"}:
        return "weaker" if "strength" in broken else "another part in a template"
    if _grown(share) < 0:
        return "lost" if _moved(strength) and _left(strength) < HALF else "smaller part"
    if not (_moved(strength) and _grown(strength) > limit):
        return "larger part"
    return "took over" if another_lost and (share.value or 0.0) > 0 else "joined"


def _against(record: Record, limit: float) -> bool:
    """Return whether an effect is against the task by more than the limit, and was not in the reference."""
    return (record.value or 0.0) < -limit <= (record.reference or 0.0)


def _grown(record: Record) -> float:
    """Return by how much a value has left zero; negative where it came nearer."""
    return abs(record.value or 0.0) - abs(record.reference or 0.0)


def _left(record: Record) -> float:
    """Return the part of the reference's value that is left; a changed sign leaves less than nothing."""
    return (record.value or 0.0) / record.reference if record.reference else 1.0


def _moved(record: Record) -> bool:
    """Return whether a value is proven to have changed at all."""
    low, high = record.interval or (0.0, 0.0)
    return not low <= 0 <= high


def _fates(heads: Mapping[str, HeadRecords]) -> dict[str, str]:
    left = {name: claims for name, claims in heads.items() if _broken(claims)}
    lost = {name for name, claims in left.items() if fate(claims, another_lost=False) == "lost"}
    return {name: fate(claims, another_lost=bool(lost - {name})) for name, claims in left.items()}


# -- all heads ---------------------------------------------------------------------------------------------------------


def _table(spec: Spec, heads: Mapping[str, HeadRecords]) -> list[str]:
    """Return a line for each head that left its limits, the furthest first, in columns."""
    groups = {str(head): spec.group_of(head) or "" for head in spec.member_heads}
    fates = _fates(heads)
    told = [record for name in fates if (record := _broken(heads[name])[0]).claim != "template"]
    told.sort(key=lambda record: -abs(record.drift or 0.0))
    rows = [_row(record, groups.get(record.component or "", ""), fates[record.component or ""]) for record in told]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _row(record: Record, group: str, word: str) -> tuple[str, ...]:
    digits = decimals(record.limit)
    values = f"{record.value:z.{digits}f}" if record.value is not None else ""
    drift = "" if record.interval is None else interval_of(record.interval, f"z.{digits}f")
    if record.drift is not None and record.interval is not None:
        values = f"{record.reference:z.{digits}f} -> {values}"
        drift = f"drift {record.drift:+z.{digits}f} {interval_of(record.interval, f'+z.{digits}f')}"
    return (record.component or "", plain(group), record.claim, values, drift, f"limit {record.limit:.3g}", word)


def _messages(records: Sequence[Record], heads: Mapping[str, HeadRecords]) -> list[str]:
    """Return what the table does not hold: why shares mean nothing, broken templates, and what is undecided."""
    causes = dict.fromkeys(_cause(record) for record in records if record.verdict is Verdict.NOT_EVALUATED)
    in_table = {name for name, claims in heads.items() if _broken(claims)[:1] != [claims.get("template")]}
    told = [
        record.message
        for record in records
        if record.verdict in (Verdict.INCONCLUSIVE, Verdict.ERROR)
        or (record.verdict is Verdict.DRIFT and record.component not in in_table)
    ]
    return [*_first(list(causes), 3), *_first(told, MOST_LINES)]


def _first(lines: Sequence[str], count: int) -> list[str]:
    more = [f"(+{len(lines) - count} more)"] if len(lines) > count else []
    return [*lines[:count], *more]


def _cause(record: Record) -> str:
    """Return why a record was not evaluated, without the head: it is the same for all."""
    return record.message.partition(": ")[2]


def _together(heads: Mapping[str, HeadRecords]) -> list[str]:
    """Return what the heads that left their limits mean together: a move, or the same circuit grown weaker."""
    fates = _fates(heads)
    lost = [name for name, word in fates.items() if word == "lost"]
    takers = [name for name, word in fates.items() if word == "took over"]
    if lost and takers:
        return [f"the role moved: {', '.join(lost)} -> {', '.join(takers)}."]
    kept = all(_worst_but_strength(claims) is Verdict.PASS for claims in heads.values())
    if fates and kept:
        return [f"same circuit, weaker: every share is kept, the effect of {', '.join(fates)} has fallen."]
    return []


def _worst_but_strength(claims: HeadRecords) -> Verdict:
    return worst([record.verdict for name, record in claims.items() if name != "strength"])


def _stronger(heads: Mapping[str, HeadRecords]) -> list[str]:
    """Return the line on heads whose effect has grown beyond what may be lost; that passes."""
    grown = [
        f"{name} {strength.reference:z.2f} -> {strength.value:z.2f}"
        for name, strength in ((name, claims["strength"]) for name, claims in heads.items())
        if _moved(strength) and _grown(strength) > (strength.limit or 0.0)
    ]
    return [f"same circuit, stronger: {', '.join(grown)}."] if grown else []


def _behaviour(case: Case, reference: Effects, heads: Mapping[str, HeadRecords]) -> list[str]:
    """Return the line that says whether the checkpoint still does the task, and by what."""
    limit = loss_at_most(case.comparison.file.spec)
    claim = loss(case, Claim("loss", "D0", limit, case.line(), called="B"), case.observed, reference)
    (hits, prompts), (before, of) = case.observed.accuracy, reference.accuracy
    accuracy = f"(accuracy {before / of:.2f} -> {hits / prompts:.2f})"
    if claim.statement is None:
        return [claim.reason]
    if not claim.statement.inside(case.missed):
        words = "has fallen" if claim.statement.p <= case.alpha else "is not proven unchanged"
        return [f"behaviour {words} {accuracy}: {claim.told()}."]
    accurate = ShareAtLeast(hits, prompts, accuracy_at_least(case.comparison.file.spec)).inside(case.missed)
    if hits * of < before * prompts and not accurate:
        return [f"accuracy has fallen {accuracy}, although the mean effect is kept: {claim.told()}."]
    fates = set(_fates(heads).values())
    how = "by other heads" if fates & {"took over", "joined"} else "without it" if "lost" in fates else ""
    return [f"behaviour is unchanged {accuracy}{f': the task is still solved, {how}' if how else ''}."]
