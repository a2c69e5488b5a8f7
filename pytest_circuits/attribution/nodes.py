"""Effects of parts to first order: attribution patching (AtP), AtP*, and integrated gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..checkpoints.model import EMBED, Site
from ..spec.components import Embedding, Head, Mlp
from ..spec.edges import Receiver
from .gradients import CLEAN, Points, differentiable, gauss_legendre
from .twins import twins_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from jaxtyping import Float
    from torch import Tensor

    from ..checkpoints.model import Edit
    from ..engine.runs import Runs
    from .gradients import Differentiable
    from .twins import Twins

Node = Embedding | Head | Mlp | Receiver
"""What can be replaced: what a part puts out, or a head's queries, keys or values as attention gets them."""
STEPS = 5


def atp(runs: Runs, nodes: Sequence[Node]) -> Float[np.ndarray, "nodes prompts"]:
    """Return (own - ablated) . d metric / d own at the clean run: what ablating each node costs, to first order.

    Two forwards and a backward pass for all nodes together (Nanda 2023; Kramar et al., arXiv:2403.00745).

    Raises:
        MeasurementError: the metric is flat at the clean run.
    """
    return _of_all(runs, nodes, CLEAN)


def integrated(runs: Runs, nodes: Sequence[Node], *, steps: int = STEPS) -> Float[np.ndarray, "nodes prompts"]:
    """Return `atp` with the mean gradient on the straight way of the embeddings from ablated to clean.

    The node form of EAP-IG (Hanna et al., arXiv:2403.17806). For the embedding it becomes exact as steps grow.
    """
    return _of_all(runs, nodes, gauss_legendre(steps))


def _of_all(runs: Runs, nodes: Sequence[Node], points: Points) -> Float[np.ndarray, "nodes prompts"]:
    sites = _sites(runs, (EMBED, *(site_of(node)[0] for node in nodes)))
    return _over_batches(runs, nodes, sites, len(points), lambda twins: _of_batch(twins, nodes, points))


def _over_batches(
    runs: Runs,
    nodes: Sequence[Node],
    sites: tuple[Site, ...],
    copies: int,
    of_batch: Callable[[Twins], Float[np.ndarray, "nodes batch"]],
) -> Float[np.ndarray, "nodes prompts"]:
    """Return what `of_batch` gives of each batch, in the order of the prompts."""

    def run() -> Float[np.ndarray, "nodes prompts"]:
        """Begin anew, as is done where memory is out."""
        out = np.full((len(nodes), len(runs.encoded)), np.nan)
        for twins in twins_of(runs, sites, copies=copies):
            out[:, list(twins.batch.indices)] = of_batch(twins)
            runs.watch("gradients", int(np.isfinite(out[:1]).sum()), len(runs.encoded))
        return out

    return runs.with_room(run)


def _sites(runs: Runs, sites: Sequence[Site]) -> tuple[Site, ...]:
    """Return each site once; their means are taken together with all others."""
    once = tuple(dict.fromkeys(sites))
    if runs.value == "mean":
        runs.keep(once)
    return once


def _of_batch(twins: Twins, nodes: Sequence[Node], points: Points) -> Float[np.ndarray, "nodes batch"]:
    graph = differentiable(twins, twins.sites, points=points)
    gradients = dict(zip(twins.sites, graph.by([graph.own[site] for site in twins.sites]), strict=True))
    clean = graph.own if points is CLEAN else twins.clean.values
    return _first_order(nodes, _changes(twins, clean), gradients)


def _changes(twins: Twins, clean: Mapping[Site, Tensor]) -> dict[Site, Tensor]:
    """Return own - ablated at every site of the twins."""
    return {site: clean[site].detach() - twins.ablated(site, clean[site].detach()) for site in twins.sites}


def _first_order(
    nodes: Sequence[Node], changes: Mapping[Site, Tensor], gradients: Mapping[Site, Tensor]
) -> Float[np.ndarray, "nodes batch"]:
    """Return change . gradient of each node; gradients of several points, side by side, are summed."""
    products = {
        site: gradients[site].reshape(-1, *change.shape).sum(0).float() * change.float()
        for site, change in changes.items()
    }
    return np.stack([_summed(products, node) for node in nodes])


def _summed(products: Mapping[Site, Tensor], node: Node) -> Float[np.ndarray, " batch"]:
    site, unit = site_of(node)
    of_node = products[site] if unit is None else products[site][:, :, unit]
    return np.asarray(of_node.double().sum((1, 2)).cpu().numpy())


def site_of(node: Node) -> tuple[Site, int | None]:
    """Return where a node passes, and which head or key/value head it is there.

    Raises:
        ValueError: the node is an MLP's input or the logits, which are read and not replaced.
    """
    if isinstance(node, Embedding):
        return EMBED, None
    if isinstance(node, Head):
        return Site("z", node.layer), node.head
    if isinstance(node, Mlp):
        return Site("mlp", node.layer), None
    if node.kind == "mlp" or node.kind == "logits":
        raise ValueError(f"{node} only reads; a node is what a part puts out, or a head's q, k or v")
    return Site(node.kind, node.layer), node.unit


# -- AtP* --------------------------------------------------------------------------------------------------------------


def atp_star(runs: Runs, nodes: Sequence[Node]) -> Float[np.ndarray, "nodes prompts"]:
    """Return AtP* (Kramar et al., arXiv:2403.00745): the size of each node's effect, never negative.

    Two things that AtP misses are seen. Saturated attention: for queries and keys the attention product is run again
    with the replaced ones, and only what follows it is linearised (the paper's QK fix, here for all positions of a
    head at once). Cancellation: the effect's size is averaged over gradients that each leave out what one layer adds
    (GradDrop), so that two ways of opposite sign do not hide each other:

        1 / (L - 1)  sum over l of  | change . gradient without layer l |

    A node's own layer, without which its gradient is 0, is not counted. Costs L backward passes, and a forward each for
    queries and keys. Queries are reached only where attention is called by name.
    """
    sites = _sites(runs, [site_of(node)[0] for node in nodes])
    return _over_batches(runs, nodes, sites, 1, lambda twins: _dropping(twins, nodes))


def _dropping(twins: Twins, nodes: Sequence[Node]) -> Float[np.ndarray, "nodes batch"]:
    layers = range(twins.runs.model.layers)
    heads = [Site("z", layer) for layer in layers]
    residuals = [Site("residual", layer) for layer in layers[1:]]
    sites = [*dict.fromkeys([*twins.sites, *heads, *residuals])]
    graph = differentiable(twins, sites)
    tensors = [site for site in sites if site.kind not in ("q", "k") and site not in residuals]
    changes = _changes(twins, graph.own) | _attended_again(twins, graph)
    total = np.zeros((len(nodes), twins.batch.rows))
    drops: list[int | None] = [*layers] if len(layers) > 1 else [None]
    for layer in drops:
        graph.dropped[0] = layer
        found = graph.by([graph.own[site] for site in tensors], again=True)
        gradients = dict(zip(tensors, found, strict=True))
        for site in (site for site in changes if site.kind in ("q", "k")):
            gradients[site] = _by_unit(twins, site, gradients[Site("z", site.layer)])
        total += np.abs(_first_order(nodes, changes, gradients))
    counted = [len(drops) - (len(layers) > 1 and not isinstance(node, Embedding)) for node in nodes]
    return np.asarray(total / np.array(counted)[:, None])


def _attended_again(twins: Twins, graph: Differentiable) -> dict[Site, Tensor]:
    """Return, for queries and keys, how what the heads put out changes when they are replaced in every layer.

    Each layer gets its clean input, so that no layer sees what another one's replacement does.
    """
    model, batch = twins.runs.model, twins.batch
    layers = range(model.layers)
    changes: dict[Site, Tensor] = {}
    for kind in ("q", "k"):
        replaced = [site for site in twins.sites if site.kind == kind]
        if not replaced:
            continue
        edits = {Site("residual", at): _instead(graph.own[Site("residual", at)].detach()) for at in layers[1:]}
        edits |= {site: _instead(twins.ablated(site, graph.own[site].detach())) for site in replaced}
        heads = [Site("z", site.layer) for site in replaced]
        run = model.forward(
            batch.clean, batch.clean_lengths, edits=edits, keep=heads, read=batch.answers, known=twins.known
        )
        for site, head in zip(replaced, heads, strict=True):
            changes[site] = _by_unit(twins, site, graph.own[head].detach() - run.values[head])
    return changes


def _by_unit(twins: Twins, site: Site, value: Tensor) -> Float[Tensor, "batch seq units width"]:
    """Return what all heads put out, those that share the keys of a unit side by side."""
    model = twins.runs.model
    return value.reshape(*value.shape[:2], model.groups if site.kind == "k" else model.heads, -1)


def _instead(value: Tensor) -> Edit:
    return lambda own: value
