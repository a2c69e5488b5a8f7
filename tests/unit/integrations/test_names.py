"""An edge's name in other tools, written and read back."""

from __future__ import annotations

import pytest

from pytest_circuits.integrations.graph import Shape
from pytest_circuits.integrations.names import TOOLS
from pytest_circuits.spec.components import Embedding, Head, Mlp
from pytest_circuits.spec.edges import Edge, Receiver, parse_edge

LAYERS = 12
KEY = Edge(Head(5, 6), Receiver(7, "k", 3, shared=False))
NAMES = {
    "eap-ig": ("a5.h6->a7.h3<k>", "input->m0", "m9->logits"),
    "auto-circuit": ("A5.6->A7.3.K", "Resid Start->MLP 0", "MLP 9->Resid End"),
    "transformer-lens": (
        "blocks.5.attn.hook_z[6] -> blocks.7.hook_k_input[3]",
        "blocks.0.hook_resid_pre -> blocks.0.hook_mlp_in",
        "blocks.9.hook_mlp_out -> blocks.11.hook_resid_post",
    ),
    "acdc": (
        "blocks.5.attn.hook_result[:, :, 6] -> blocks.7.hook_k_input[:, :, 3]",
        "blocks.0.hook_resid_pre[:] -> blocks.0.hook_mlp_in[:]",
        "blocks.9.hook_mlp_out[:] -> blocks.11.hook_resid_post[:]",
    ),
}


@pytest.mark.parametrize("tool", TOOLS)
def test_each_tool_has_its_own_name_for_an_edge(tool: str) -> None:
    edges = (KEY, Edge(Embedding(), Receiver(0, "mlp")), Edge(Mlp(9), Receiver(LAYERS, "logits")))

    assert tuple(map(TOOLS[tool], edges)) == NAMES[tool]


@pytest.mark.parametrize("tool", TOOLS)
def test_every_edge_of_a_model_is_read_back_from_its_name(tool: str) -> None:
    shape = Shape(3, 2)
    read = 0
    for place, sender in enumerate(shape.senders):
        for index, receiver in enumerate(shape.receivers):
            if shape.real[place, index]:
                edge = Edge(sender, receiver)
                assert parse_edge(TOOLS[tool](edge), 3) == edge
                read += 1

    assert read == shape.real.sum()


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("blocks.5.attn.hook_result[6] -> blocks.7.attn.hook_q_input[3]", "L5H6 -> L7H3.q"),
        ("hook_embed -> blocks.7.hook_v_input[:,:,3]", "embed -> L7H3.v"),
        ("blocks.5.attn.hook_z[:, :, 6] -> blocks.5.hook_resid_mid[:]", "L5H6 -> L5.mlp"),
        ("blocks.5.hook_mlp_out -> logits", "L5.mlp -> logits"),
    ],
)
def test_other_spellings_of_hooks_are_read_too(text: str, canonical: str) -> None:
    assert str(parse_edge(text, LAYERS)) == canonical


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("embed -> blocks.3.hook_resid_post", "behind layer 3, where all later layers read"),
        ("blocks.3.hook_resid_pre -> logits", "names no part"),
        ("hook_pos_embed -> logits", "names no part"),
        ("embed -> blocks.3.attn.hook_q[1]", "names no part"),
        ("blocks.7.attn.hook_z[6] -> blocks.5.hook_k_input[3]", "leads nowhere"),
    ],
)
def test_a_hook_that_is_neither_end_of_an_edge_is_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_edge(text, LAYERS)


@pytest.mark.parametrize("tool", ["eap-ig", "auto-circuit", "acdc"])
def test_a_shared_key_value_head_has_no_name_where_edges_lead_to_heads(tool: str) -> None:
    edge = Edge(Embedding(), Receiver(7, "v", 1))

    with pytest.raises(ValueError, match="L7KV1.v is a key/value head that heads share, .* name a head"):
        TOOLS[tool](edge)
    assert TOOLS["transformer-lens"](edge).endswith("blocks.7.hook_v_input[1]")
