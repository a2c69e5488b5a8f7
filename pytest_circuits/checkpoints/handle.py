"""A checkpoint's handle: identified at once, loaded and bound when something is first measured on it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CircuitsError
from .architectures import Shape, shape_of
from .identify import Identified, identify
from .naming import Checkpoint, parse_checkpoint

if TYPE_CHECKING:
    from .model import BoundModel


class CheckpointModel:
    """What the fixture `circuit_model` gives. Making one reads files only: neither torch nor transformers."""

    def __init__(self, identified: Identified, *, device: str = "auto", dtype: str = "float32") -> None:
        self.identified = identified
        self.device = device
        self.dtype = dtype
        self._bound: BoundModel | None = None
        self._failure: CircuitsError | None = None

    @property
    def name(self) -> str:
        """The name in node ids and reports."""
        return self.identified.name

    @property
    def source(self) -> str:
        """What the user typed: `builtin:tiny`, a directory, a Hub id."""
        return self.identified.source

    @property
    def fingerprint(self) -> str:
        """A hash over config, tokenizer and tensors: equal for checkpoints that are the same."""
        return self.identified.fingerprint

    @property
    def shape(self) -> Shape:
        """Architecture, layers and heads."""
        return shape_of(self.identified.config)

    @property
    def bound(self) -> BoundModel:
        """The model, loaded and self-checked on first use; a failure is remembered and raised again."""
        if self._failure is not None:
            raise self._failure
        if self._bound is None:
            self._bound = self._open()
        return self._bound

    def release(self) -> None:
        """Let go of the weights; the next use loads them again."""
        self._bound = None

    def _open(self) -> BoundModel:
        from .load import open_model

        try:
            return open_model(self.identified, device=self.device, dtype=self.dtype)
        except CircuitsError as failure:
            self._failure = failure
            raise

    def __repr__(self) -> str:
        return f"<CheckpointModel {self.name} from {self.source!r}>"


def open_checkpoint(checkpoint: Checkpoint | str, *, device: str = "auto", dtype: str = "float32") -> CheckpointModel:
    """Identify a checkpoint and return its handle; its weights are loaded on the first measurement.

    Args:
        checkpoint: `[NAME=]SOURCE` as on the command line, a relative path counting from the current folder.
        device: auto (cuda, else cpu), cpu, cuda, cuda:N or mps.
        dtype: float32, bfloat16 or float16.

    Raises:
        UsageProblem: the text names no checkpoint.
        CheckpointRefused: it is unsafe, damaged, unknown or of an unsupported architecture.
    """
    if isinstance(checkpoint, str):
        checkpoint = parse_checkpoint(checkpoint, folder=Path.cwd())
    model = CheckpointModel(identify(checkpoint), device=device, dtype=dtype)
    _ = model.shape  # what its config cannot be is refused before anything is loaded
    return model
