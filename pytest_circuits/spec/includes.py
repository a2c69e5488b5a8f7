"""Vocabularies and templates that a spec takes from other files of the project."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .document import Place, Problem, read_document
from .wording import did_you_mean

if TYPE_CHECKING:
    from pathlib import Path

    from .document import Document
    from .document import Path as Keys

SHARED = ("vocabulary", "templates")


def file_inside(document: Document, at: Keys, text: str, folder: Path, root: Path) -> tuple[str, bytes] | None:
    """Return the name and the bytes of a file that a spec names by a path from its own folder.

    A problem is noted, and None returned, where the file lies outside the project (links followed) or cannot be read.
    """
    try:
        target = (folder / text).resolve()
        if target.is_relative_to(root.resolve()):
            return target.relative_to(root.resolve()).as_posix(), target.read_bytes()
        document.problem(at, f"{text!r} lies outside the project; a spec may only name files inside it")
    except FileNotFoundError:
        document.problem(at, f"there is no file {text!r}; the path counts from the folder of this file")
    except (OSError, ValueError) as error:
        document.problem(at, f"the file {text!r} cannot be read: {getattr(error, 'strerror', None) or error}")
    return None


def merge_includes(document: Document, folder: Path, root: Path) -> None:
    """Put the vocabulary and the templates of included files under the spec's own, which win."""
    prompts = document.data.get("prompts")
    included = prompts.get("include") if isinstance(prompts, dict) else None
    names = (included,) if isinstance(included, str) else included
    if not isinstance(prompts, dict) or not isinstance(names, tuple):
        return
    for key, empty in (("vocabulary", {}), ("templates", ())):
        if type(prompts.setdefault(key, empty)) is not type(empty):
            return
    merge = _Merge(document, prompts)
    for index, text in enumerate(names):
        if isinstance(text, str):
            at: Keys = ("prompts", "include") if isinstance(included, str) else ("prompts", "include", index)
            if (found := file_inside(document, at, text, folder, root)) is not None:
                merge.add(read_document(found[1], found[0]))


class _Merge:
    """Adds included files to the prompts of a spec, each entry with the place where it was written."""

    def __init__(self, document: Document, prompts: dict[str, Any]) -> None:
        self.document = document
        self.prompts = prompts
        self.own_slots = frozenset(prompts["vocabulary"])
        self.own_ids = frozenset(_id(template) for template in prompts["templates"])

    def add(self, other: Document) -> None:
        """Add one file."""
        self.document.problems += other.problems
        data = {} if other.data is None and other.problems else other.data
        if not isinstance(data, dict):
            self.refuse(Place(other.name, 1, 1), (), f"an included file is a mapping of {' and '.join(SHARED)}")
            return
        for key in data:
            if key not in SHARED:
                self.refuse(other.keys[(key,)], (key,), f"unknown key {key!r}{did_you_mean(key, SHARED)}")
        vocabulary, templates = data.get("vocabulary", {}), data.get("templates", ())
        if isinstance(vocabulary, dict):
            self.add_vocabulary(other, vocabulary)
        else:
            self.refuse(other.values[("vocabulary",)], ("vocabulary",), "expected a mapping of slots to words")
        if isinstance(templates, tuple):
            self.add_templates(other, templates)
        else:
            self.refuse(other.values[("templates",)], ("templates",), "expected a list of templates")

    def add_vocabulary(self, other: Document, vocabulary: dict[str, Any]) -> None:
        """Add the slots that the spec itself does not have; two files that both have one leave open which is meant."""
        for slot, words in vocabulary.items():
            path: Keys = ("vocabulary", slot)
            if slot in self.own_slots:
                continue
            if slot in self.prompts["vocabulary"]:
                first = self.document.keys[("prompts", *path)].file
                text = f"{first} has the slot {slot!r} too; keep one, or say it in the spec"
                self.refuse(other.keys[path], path, text)
                continue
            self.prompts["vocabulary"][slot] = words
            self.copy_places(other, path, ("prompts", *path))

    def add_templates(self, other: Document, templates: tuple[Any, ...]) -> None:
        """Add the templates whose ids the spec itself does not have, after its own."""
        for index, template in enumerate(templates):
            if _id(template) is None or _id(template) not in self.own_ids:
                self.copy_places(other, ("templates", index), ("prompts", "templates", len(self.prompts["templates"])))
                self.prompts["templates"] += (template,)

    def copy_places(self, other: Document, old: Keys, new: Keys) -> None:
        """Keep where everything below a path was written."""
        for places, theirs in ((self.document.keys, other.keys), (self.document.values, other.values)):
            places.update({new + path[len(old) :]: place for path, place in theirs.items() if path[: len(old)] == old})
        plain = other.plain.items()
        self.document.plain.update({new + path[len(old) :]: text for path, text in plain if path[: len(old)] == old})

    def refuse(self, place: Place, path: Keys, text: str) -> None:
        """Note a problem in an included file."""
        self.document.problems.append(Problem(place, path, text))


def _id(template: Any) -> Any:
    return template.get("id") if isinstance(template, dict) else None
