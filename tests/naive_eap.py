"""EAP-IG's graph by its own formulas, edge by edge: the oracle of everything that reads and writes its files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Naive:
    layers: int = 2
    heads: int = 3
    parallel: bool = False
    width: int = 5

    @property
    def config(self) -> dict[str, Any]:
        return {
            "n_layers": self.layers,
            "n_heads": self.heads,
            "parallel_attn_mlp": self.parallel,
            "d_model": self.width,
        }

    @property
    def size(self) -> tuple[int, int]:
        return 1 + self.layers * (self.heads + 1), self.layers * (3 * self.heads + 1) + 1

    def forward(self, node: str) -> int:
        if node == "input":
            return 0
        if node.startswith("m"):
            return 1 + int(node[1:]) * (self.heads + 1) + self.heads
        layer, head = node[1:].split(".h")
        return 1 + int(layer) * (self.heads + 1) + int(head)

    def backward(self, node: str, letter: str) -> int:
        if node == "logits":
            return self.size[1] - 1
        if node.startswith("m"):
            return int(node[1:]) * (3 * self.heads + 1) + 3 * self.heads
        layer, head = node[1:].split(".h")
        return int(layer) * (3 * self.heads + 1) + "qkv".index(letter) * self.heads + int(head)

    def nodes(self) -> list[str]:
        layers = range(self.layers)
        inside = [[*(f"a{layer}.h{head}" for head in range(self.heads)), f"m{layer}"] for layer in layers]
        return ["input", *(node for nodes in inside for node in nodes), "logits"]

    def edges(self) -> dict[str, tuple[int, int]]:
        """Every edge's place in the matrices by its name, in the order in which EAP-IG adds them."""
        found: dict[str, tuple[int, int]] = {}
        stream = ["input"]

        def add(sender: str, node: str, letter: str = "") -> None:
            name = f"{sender}->{node}" + (f"<{letter}>" if letter else "")
            found[name] = (self.forward(sender), self.backward(node, letter))

        for layer in range(self.layers):
            heads = [f"a{layer}.h{head}" for head in range(self.heads)]
            for sender in stream:
                for head in heads:
                    for letter in "qkv":
                        add(sender, head, letter)
                if self.parallel:
                    add(sender, f"m{layer}")
            if not self.parallel:
                for sender in [*stream, *heads]:
                    add(sender, f"m{layer}")
            stream += [*heads, f"m{layer}"]
        for sender in stream:
            add(sender, "logits")
        return found

    def receivers(self) -> list[str]:
        found = []
        for layer in range(self.layers):
            found += [f"a{layer}.h{head}<{letter}>" for letter in "qkv" for head in range(self.heads)]
            found.append(f"m{layer}")
        return [*found, "logits"]

    @staticmethod
    def score(sender: int, receiver: int) -> float:
        """A score that no other edge has, and that float32 holds."""
        return (-1) ** (sender + receiver) * (sender + 1 + receiver / 1024)

    @staticmethod
    def inside(sender: int, receiver: int) -> bool:
        return (sender + receiver) % 3 == 0

    def data(self) -> dict[str, Any]:
        """What its `to_json` writes."""
        return {
            "cfg": self.config,
            "nodes": {node: {"in_graph": node == "logits" or self.forward(node) % 2 == 0} for node in self.nodes()},
            "edges": {
                name: {"score": self.score(*at), "in_graph": self.inside(*at)} for name, at in self.edges().items()
            },
        }

    def text(self) -> str:
        return json.dumps(self.data())

    def tensors(self) -> dict[str, Any]:
        """What its `to_pt` saves."""
        scores, inside = torch.zeros(self.size), torch.zeros(self.size, dtype=torch.bool)
        for at in self.edges().values():
            scores[at], inside[at] = self.score(*at), self.inside(*at)
        return {
            "cfg": self.config,
            "src_nodes": self.nodes()[:-1],
            "dst_nodes": self.receivers(),
            "edges_scores": scores,
            "edges_in_graph": inside,
            "nodes_in_graph": torch.arange(self.size[0]) % 2 == 0,
        }

    def modules(self) -> dict[str, torch.Tensor]:
        """The scores as auto-circuit has them: by module, head and sender."""
        found: dict[str, list[list[float]]] = {}
        for name, (sender, receiver) in self.edges().items():
            node = name.split("->")[1]
            if node == "logits":
                module, head = f"blocks.{self.layers - 1}.hook_resid_post", 0
            elif node.startswith("m"):
                module, head = f"blocks.{node[1:]}.hook_mlp_in", 0
            else:
                layer, rest = node[1:].split(".h")
                module, head = f"blocks.{layer}.hook_{rest[-2]}_input", int(rest[:-3])
            rows = found.setdefault(module, [])
            while len(rows) <= head:
                rows.append([])
            rows[head].append(self.score(sender, receiver))
        return {
            module: torch.tensor(rows if "_input" in module and self.heads > 1 else rows[0])
            for module, rows in found.items()
        }


SHAPES = [Naive(), Naive(3, 1), Naive(1, 2), Naive(2, 3, parallel=True), Naive(3, 2, parallel=True)]
