"""The runs of a spec on one model: clean, corrupt, and with any set of parts ablated."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..checkpoints.attention import attention_of_last
from ..checkpoints.model import Site
from ..errors import MeasurementError
from ..spec.components import Head, KeyValue
from .batch import Batch, Value, batch_of, bucketed
from .means import Means
from .metric import Metric, logit_diff, read, tokens_read
from .patches import Ablated, Group, edits_of, plan
from .unpatched import Shelf, Unpatched

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from jaxtyping import Float

    from ..checkpoints.model import BoundModel, Edit
    from ..prompts.encode import Encoded
    from ..records import Watch

    PerPrompt = Float[np.ndarray, "prompts"]

T = TypeVar("T")

__all__ = ["Ablated", "Runs"]


class Runs:
    """Every run that one spec asks of one model, over all its prompts.

    What is known is not run again: a patched run starts at the first token and in the lowest layer that it changes, and
    many patches share a forward. Arrays that come out have shape (prompts,), in the order of `encoded`.
    """

    def __init__(
        self,
        model: BoundModel,
        encoded: Sequence[Encoded],
        *,
        value: Value,
        metric: Metric,
        batch_size: int = 256,
        together: Sequence[Sequence[int]] | None = None,
        watch: Watch | None = None,
    ) -> None:
        """Nothing runs yet.

        Args:
            model: a bound model.
            encoded: the prompts.
            value: what an ablated part takes.
            metric: what is read of each run.
            batch_size: rows in a forward, and prompts whose plain runs are held in memory.
            together: which prompts make a batch; by default those of one length that start at one position.
            watch: is told of the forwards that were made.
        """
        self.model, self.encoded, self.value, self.metric = model, encoded, value, metric
        self.batch_size, self.together = batch_size, together
        self.watch = watch or (lambda what, done, total: None)
        self.sites = model.sites
        self.notices: tuple[str, ...] = ()

    @cached_property
    def batches(self) -> tuple[Batch, ...]:
        """The prompts in batches, each of at most `batch_size`."""
        size = self.batch_size
        groups = self.together or bucketed(self.encoded, self.value, size)
        pieces = [group[at : at + size] for group in groups for at in range(0, len(group), size)]
        return tuple(self.batch(indices) for indices in pieces)

    @cached_property
    def _shelf(self) -> Shelf:
        needed = self.sites if self.value == "resample" else ()
        return Shelf(self.model, self.metric, needed, self.batch_size)

    # -- plain runs ------------------------------------------------------------------------------------------------

    @cached_property
    def clean(self) -> PerPrompt:
        """c: the metric of the clean run."""
        return self._over("clean", lambda batch, plain: plain.clean.logits)

    @cached_property
    def clean_logit_diff(self) -> PerPrompt:
        """Answer minus foil on the clean prompt, in logits."""
        return self._gathered(
            "clean", lambda batch, plain: logit_diff(self.finite(batch, plain.clean.logits), batch, self.metric)
        )

    @cached_property
    def corrupt(self) -> PerPrompt:
        """x: the metric of the corrupt run."""
        return self._over("corrupt", lambda batch, plain: plain.corrupt.logits)

    # -- ablated runs ----------------------------------------------------------------------------------------------

    def ablated(self, what: Ablated) -> PerPrompt:
        """Return the metric of the clean run in which these parts take their ablated value."""
        return np.asarray(self.sweep("one circuit", [what])[0])

    def sweep(self, what: str, request: Sequence[Ablated]) -> Float[np.ndarray, "request prompts"]:
        """Return the metric of each of many ablated runs; `what` they are is told to who watches.

        Raises:
            MeasurementError: logits are not finite, or not even one row fits into memory.
        """
        self.keep_keys_and_values(request)
        return self.with_room(lambda: self._swept(what, request))

    def _swept(self, what: str, request: Sequence[Ablated]) -> Float[np.ndarray, "request prompts"]:
        plans = [(batch, plan(request, rows=batch.rows, limit=self.batch_size)) for batch in self.batches]
        done, total = 0, sum(len(groups) for _, groups in plans)
        out = np.full((len(request), len(self.encoded)), np.nan)
        for batch, groups in plans:
            plain = self.plain(batch)
            for group in groups:
                found = self._patched(batch, plain, group, [request[number] for number in group.patches])
                out[np.ix_(group.patches, batch.indices)] = found
                done += 1
                self.watch(what, done, total)
        return out

    def _patched(
        self, batch: Batch, plain: Unpatched, group: Group, patches: Sequence[Ablated]
    ) -> Float[np.ndarray, "patches batch"]:
        """Return the metric of one forward in which a batch runs once for each patch."""
        return self.measured(batch, plain, self._logits(batch, plain, group.layer, patches))

    def _logits(
        self, batch: Batch, plain: Unpatched, layer: int, patches: Sequence[Ablated]
    ) -> Float[Tensor, "patches batch read"]:
        """Run a batch once for each patch, all of them in one forward that starts in `layer`."""
        logits = self.model.forward(
            batch.clean,
            batch.clean_lengths,
            edits=self.edits(batch, plain, patches),
            read=tokens_read(self.metric, batch),
            known=plain.known(layer, copies=len(patches)),
        ).logits
        return logits.reshape(len(patches), batch.rows, -1)

    def _ablation(self, batch: Batch, plain: Unpatched, site: Site) -> Tensor:
        """Return the ablated value of a site, laid out at a batch's clean positions from its start on."""
        if self.value == "zero":
            return torch.zeros((), device=self.model.device, dtype=self.model.dtype)
        return plain.resampled(site) if self.value == "resample" else self.means.at(site, batch, self.model.dtype)

    @cached_property
    def means(self) -> Means:
        """The mean value of every site."""
        return Means(self.model, self.encoded, self.batches, self.sites)

    def keep_keys_and_values(self, request: Sequence[Ablated]) -> None:
        """See to it that keys and values are at hand where a request replaces them: they are not kept otherwise."""
        wanted = {part.layer for patch in request for part in patch.parts if isinstance(part, KeyValue)}
        self.keep([Site(kind, layer) for layer in sorted(wanted) for kind in ("k", "v")])

    def keep(self, sites: Collection[Site]) -> None:
        """See to it that ablated values of these sites are at hand, beside those that make up a full patch."""
        new = [site for site in sites if site not in self.sites]
        if new:
            self._forget()
            self.sites = (*self.sites, *new)

    # -- what other runs are made of -------------------------------------------------------------------------------

    def plain(self, batch: Batch) -> Unpatched:
        """Return the plain runs of a batch, made again where they had to go."""
        return self._shelf.of(batch)

    def edits(self, batch: Batch, plain: Unpatched, patches: Sequence[Ablated]) -> dict[Site, Edit]:
        """Return what gives parts their ablated value in a forward that starts at the batch's `start`.

        The batch runs in it once for each patch; `keep_keys_and_values` comes first where any names a key/value head.
        """
        where = batch.source[:, batch.start :] >= 0
        return edits_of(patches, self.model, where, lambda site: self._ablation(batch, plain, site))

    def measured(
        self, batch: Batch, plain: Unpatched, logits: Float[Tensor, "copies batch read"]
    ) -> Float[np.ndarray, "copies batch"]:
        """Return the metric of a forward in which a batch ran several times, from the logits that the metric reads.

        Raises:
            MeasurementError: logits are not finite.
        """
        own = plain.clean.logits
        return np.stack([_plain(read(self.metric, self.finite(batch, one), own, batch)) for one in logits])

    # -- readings beside the metric --------------------------------------------------------------------------------

    def attention(self, heads: Collection[Head], slot: Callable[[Encoded], Sequence[int]]) -> dict[Head, PerPrompt]:
        """Return each head's attention from the answer position to the positions of `slot`, summed over them.

        Prompts run one length at a time, because the last column of a padded row is no answer position.
        """
        return self.with_room(lambda: self._attention(heads, slot))

    def _attention(self, heads: Collection[Head], slot: Callable[[Encoded], Sequence[int]]) -> dict[Head, PerPrompt]:
        out = {head: np.full(len(self.encoded), np.nan) for head in heads}
        groups = bucketed(self.encoded, "zero", self.batch_size)
        for done, rows in enumerate(groups, start=1):
            patterns = attention_of_last(self.model, self.batch(rows).clean)
            for at, index in enumerate(rows):
                to = _plain(patterns[:, at, :, list(slot(self.encoded[index]))].sum(-1))
                for head in heads:
                    out[head][index] = to[head.layer, head.head]
            self.watch("attention", done, len(groups))
        return out

    def noise(self, prompts: int = 8) -> float:
        """Return the largest change of the clean metric of a few prompts by how they are run.

        They run together with all that share their batch; alone; and as patched runs do, from a known token and layer
        on, with a patch of nothing.
        """
        return self.with_room(lambda: self._noise(prompts))

    def _noise(self, prompts: int) -> float:
        batch = max(self.batches, key=lambda batch: batch.rows)
        few = self.batch(batch.indices[: min(prompts, max(1, self.batch_size // 2))])
        together = self._shelf.of(batch).clean.logits[: few.rows]
        # A divergence is flat around the own clean run: seen from another distribution, rounding moves it.
        other = together.roll(1, dims=-1)
        change = 0.0
        for logits in (self._alone(few), *self._of_no_patch(few)):
            here = read(self.metric, self.finite(few, logits), other, few)
            change = max(change, float((here - read(self.metric, together, other, few)).abs().max()))
        return change

    def _alone(self, few: Batch) -> Tensor:
        singles = [self.batch([index]) for index in few.indices]
        return torch.cat([Unpatched(self.model, single, self.metric, ()).clean.logits for single in singles])

    def _of_no_patch(self, few: Batch) -> Iterator[Tensor]:
        plain = Unpatched(self.model, few, self.metric, ())
        for layer in range(0, self.model.layers, max(1, self.model.layers // 2)):
            yield from self._logits(few, plain, layer, [Ablated(frozenset())] * min(2, self.batch_size // few.rows))

    # -- memory ----------------------------------------------------------------------------------------------------

    def with_room(self, run: Callable[[], T]) -> T:
        """Return what `run` gives; where memory is out, halve the batch, note it, and run from the beginning."""
        while True:
            try:
                return run()
            except RuntimeError as error:  # torch's class for this is one, and not every device raises that class
                if not _out_of_memory(error):
                    raise
                said = str(error).partition("\n")[0]
            self._halve(said)  # outside of the handler, which holds on to what filled the memory

    def _halve(self, said: str) -> None:
        if self.batch_size == 1:
            raise MeasurementError(
                f"one prompt of {self.encoded[0].pair.clean!r}'s length should fit into the memory beside "
                f"{self.model.name!r}, and does not: {said}\n"
                "  Take a larger device, or --circuits-dtype bfloat16: in half the precision it takes half the memory."
            )
        self.batch_size //= 2
        self._forget()
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()
        self.notices = (f"memory was out on {self.model.name!r}: {self.batch_size} prompts run in a forward at most",)

    def _forget(self) -> None:
        """Let go of all that is held in memory; it is made again when it is asked for."""
        for name in ("batches", "_shelf", "means"):
            self.__dict__.pop(name, None)

    # -- over all batches ------------------------------------------------------------------------------------------

    def batch(self, indices: Sequence[int]) -> Batch:
        """Return the named prompts as one batch."""
        return batch_of(self.encoded, indices, self.model.device, self.value)

    def _over(self, what: str, logits: Callable[[Batch, Unpatched], Tensor]) -> PerPrompt:
        return self._gathered(
            what,
            lambda batch, plain: read(self.metric, self.finite(batch, logits(batch, plain)), plain.clean.logits, batch),
        )

    def _gathered(self, what: str, run: Callable[[Batch, Unpatched], Tensor]) -> PerPrompt:
        """Return what `run` gives on each batch, in the order of the prompts."""

        def all_batches() -> PerPrompt:
            out = np.full(len(self.encoded), np.nan)
            for done, batch in enumerate(self.batches, start=1):
                out[list(batch.indices)] = _plain(run(batch, self._shelf.of(batch)))
                self.watch(what, done, len(self.batches))
            return out

        return self.with_room(all_batches)

    def finite(self, batch: Batch, logits: Tensor) -> Tensor:
        """Return a batch's logits; MeasurementError where one is not finite."""
        finite = logits.isfinite().all(-1)
        if not bool(finite.all()):
            bad = [batch.indices[row] for row in (~finite).nonzero()[:, 0].tolist()]
            raise MeasurementError(
                f"{len(bad)} of {len(finite)} prompts give logits that are not finite on {self.model.name!r}, first "
                f"{self.encoded[bad[0]].pair.clean!r}.\n  A mean over the rest would hide it, so nothing is judged."
            )
        return logits


def _out_of_memory(error: RuntimeError) -> bool:
    """Say whether torch found no memory: on a GPU that has a class of its own, on other devices only these words."""
    said = str(error)
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in said or "can't allocate memory" in said


def _plain(tensor: Tensor) -> PerPrompt:
    return np.asarray(tensor.double().cpu().numpy())
