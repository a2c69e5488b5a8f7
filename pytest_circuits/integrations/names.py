"""The name of an edge in other tools; `parse_edge` reads them all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..spec.components import Embedding, Head

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..spec.edges import Edge, Receiver, Sender


def eap_sender(sender: Sender) -> str:
    """Return EAP-IG's name of a sender: `input`, `a5.h5`, `m9`."""
    if isinstance(sender, Embedding):
        return "input"
    return f"a{sender.layer}.h{sender.head}" if isinstance(sender, Head) else f"m{sender.layer}"


def eap_receiver(receiver: Receiver) -> str:
    """Return EAP-IG's name of a receiver: `a7.h3<k>`, `m9`, `logits`.

    Raises:
        ValueError: it is a key/value head that heads share, which EAP-IG has not.
    """
    if receiver.kind == "logits":
        return "logits"
    return f"m{receiver.layer}" if receiver.kind == "mlp" else f"a{receiver.layer}.h{_head(receiver)}<{receiver.kind}>"


def eap_ig(edge: Edge) -> str:
    """Return EAP-IG's name of an edge: `a5.h5->a7.h3<k>`."""
    return f"{eap_sender(edge.sender)}->{eap_receiver(edge.receiver)}"


def auto_circuit(edge: Edge) -> str:
    """Return auto-circuit's name of an edge: `A5.5->A7.3.K`, `Resid Start->MLP 0`."""
    sender, receiver = edge.sender, edge.receiver
    if isinstance(sender, Embedding):
        start = "Resid Start"
    else:
        start = f"A{sender.layer}.{sender.head}" if isinstance(sender, Head) else f"MLP {sender.layer}"
    if receiver.kind == "logits":
        return f"{start}->Resid End"
    if receiver.kind == "mlp":
        return f"{start}->MLP {receiver.layer}"
    return f"{start}->A{receiver.layer}.{_head(receiver)}.{receiver.kind.upper()}"


def transformer_lens(edge: Edge) -> str:
    """Return the hooks between which an edge leads: `blocks.5.attn.hook_z[5] -> blocks.7.hook_k_input[3]`."""
    return _hooks(edge, "attn.hook_z[{}]", "[{}]", "")


def acdc(edge: Edge) -> str:
    """Return ACDC's names: `blocks.5.attn.hook_result[:, :, 5] -> blocks.7.hook_k_input[:, :, 3]`.

    Raises:
        ValueError: the receiver is a key/value head that heads share, which ACDC has not.
    """
    if edge.receiver.kind in ("k", "v"):
        _head(edge.receiver)
    return _hooks(edge, "attn.hook_result[:, :, {}]", "[:, :, {}]", "[:]")


TOOLS: Mapping[str, Callable[[Edge], str]] = {
    "eap-ig": eap_ig,
    "auto-circuit": auto_circuit,
    "transformer-lens": transformer_lens,
    "acdc": acdc,
}


def _hooks(edge: Edge, head: str, index: str, whole: str) -> str:
    """Return the hooks of a sender and a receiver.

    Args:
        edge: the edge.
        head: where a head's output is, with room for its number.
        index: how one head is told of a hook that has all.
        whole: how all of a hook is told.
    """
    sender, receiver = edge.sender, edge.receiver
    if isinstance(sender, Embedding):
        start = f"blocks.0.hook_resid_pre{whole}"
    else:
        out = head.format(sender.head) if isinstance(sender, Head) else f"hook_mlp_out{whole}"
        start = f"blocks.{sender.layer}.{out}"
    if receiver.kind == "logits":
        return f"{start} -> blocks.{receiver.layer - 1}.hook_resid_post{whole}"
    if receiver.kind == "mlp":
        return f"{start} -> blocks.{receiver.layer}.hook_mlp_in{whole}"
    return f"{start} -> blocks.{receiver.layer}.hook_{receiver.kind}_input{index.format(receiver.unit)}"


def _head(receiver: Receiver) -> int:
    if receiver.shared and receiver.kind != "q":
        raise ValueError(
            f"{receiver} is a key/value head that heads share, and this tool has edges to heads only; name a head"
        )
    return receiver.unit
