"""Every word the built-in checkpoints know: three languages, six kinds of sequence, names, places and years."""

from __future__ import annotations

from dataclasses import dataclass

BOS, PAD, UNKNOWN = "<bos>", "<pad>", "<unk>"
SPECIALS = (BOS, PAD, UNKNOWN)

Forms = tuple[str, str]
"""A word's singular form, then its plural form."""


@dataclass(frozen=True, slots=True)
class Language:
    """The words one language fills the agreement templates with."""

    name: str
    determiner: str
    relative: str
    nouns: tuple[Forms, ...]
    verbs: tuple[Forms, ...]
    clause_verbs: tuple[Forms, ...]
    past_verbs: tuple[str, ...]
    prepositions: tuple[str, ...]
    adjectives: tuple[str, ...]
    adverbs: tuple[str, ...]

    def words(self) -> tuple[str, ...]:
        """Every word of the language, in a fixed order."""
        pairs = self.nouns + self.verbs + self.clause_verbs
        forms = tuple(form for pair in pairs for form in pair)
        rest = self.past_verbs + self.prepositions + self.adjectives + self.adverbs
        return (self.determiner, self.relative, *forms, *rest)


def _forms(text: str) -> tuple[Forms, ...]:
    """Read "dog/dogs key/keys" as pairs of forms."""
    pairs = [word.split("/") for word in text.split()]
    return tuple((singular, plural) for singular, plural in pairs)


def _inflected(stems: str, singular: str, plural: str) -> tuple[Forms, ...]:
    """Pairs of forms made of each stem with a singular and a plural ending."""
    return tuple((stem + singular, stem + plural) for stem in stems.split())


ENGLISH = Language(
    name="english",
    determiner="the",
    relative="that",
    nouns=_forms(
        "dog/dogs cat/cats key/keys table/tables author/authors pilot/pilots farmer/farmers teacher/teachers "
        "doctor/doctors student/students king/kings lawyer/lawyers driver/drivers singer/singers guard/guards "
        "car/cars house/houses tree/trees book/books lamp/lamps boat/boats horse/horses bird/birds child/children "
        "woman/women man/men picture/pictures window/windows"
    ),
    verbs=_forms("is/are was/were has/have runs/run sings/sing sleeps/sleep waits/wait falls/fall moves/move does/do"),
    clause_verbs=_forms("likes/like sees/see knows/know helps/help follows/follow"),
    past_verbs=("liked", "saw", "knew", "helped", "followed"),
    prepositions=("near", "by", "behind", "above", "below", "beside", "with", "under", "around", "against"),
    adjectives=("old", "big", "small", "red", "green", "tall", "kind", "happy", "quiet", "young", "dark", "new"),
    adverbs=("often", "always", "now", "still", "here", "never"),
)

VELAN = Language(
    name="velan",
    determiner="zu",
    relative="keth",
    nouns=_inflected("brom dalk fenn gorv hilm jast korp lumb mirt nolk peld rask", "a", "iri"),
    verbs=_inflected("vosh tarn quil smed drav", "et", "ommu"),
    clause_verbs=_inflected("chul pogh lenz", "et", "ommu"),
    past_verbs=("chulsa", "poghsa", "lenzsa"),
    prepositions=("ip", "orn", "usk", "elv"),
    adjectives=("glauk", "threll", "wemp", "yorrid"),
    adverbs=("ninka", "sool", "bivv"),
)

TOKRI = Language(
    name="tokri",
    determiner="ama",
    relative="issen",
    nouns=_inflected("bel cad dor eph fil gam hov jun kel lor mab nev", "oto", "upe"),
    verbs=_inflected("ruz sib tov ulg wix", "aan", "eek"),
    clause_verbs=_inflected("xan yeb zod", "aan", "eek"),
    past_verbs=("xanil", "yebil", "zodil"),
    prepositions=("dja", "dje", "dji", "djo"),
    adjectives=("mmala", "mmele", "mmili", "mmolo"),
    adverbs=("rruta", "rrute", "rruti"),
)

LANGUAGES = (ENGLISH, VELAN, TOKRI)


@dataclass(frozen=True, slots=True)
class Sequence:
    """An ordered kind of word; a wrapping kind starts again after its last member."""

    kind: str
    members: tuple[str, ...]
    wraps: bool = False

    def run(self, start: int, count: int) -> tuple[str, ...]:
        """Members from ``start`` on; a kind that does not wrap must hold them all."""
        if not self.wraps and start + count > len(self.members):
            raise IndexError(f"{self.kind} has no {count} members from {start} on")
        return tuple(self.members[(start + step) % len(self.members)] for step in range(count))

    def successors(self) -> dict[str, str]:
        """Each member that has a successor, with it."""
        last = len(self.members) if self.wraps else len(self.members) - 1
        return {self.members[place]: self.members[(place + 1) % len(self.members)] for place in range(last)}


SEQUENCES = (
    Sequence(
        "number-words",
        tuple(
            "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
            "seventeen eighteen nineteen twenty".split()
        ),
    ),
    Sequence("numerals", tuple(str(number) for number in range(1, 61))),
    Sequence("weekdays", tuple("monday tuesday wednesday thursday friday saturday sunday".split()), wraps=True),
    Sequence(
        "months",
        tuple("january february march april may june july august september october november december".split()),
        wraps=True,
    ),
    Sequence("letters", tuple("abcdefghijklmnopqrstuvwxyz")),
    Sequence(
        "ordinals",
        tuple(
            "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth "
            "fifteenth sixteenth seventeenth eighteenth nineteenth twentieth".split()
        ),
    ),
)

FILLERS = tuple(
    "van hat ring desk cup door coat shoe fork plate chair phone clock brush spoon rope nail box bag pen".split()
)
NAMES = tuple(
    "mary john tom anna james susan robert linda david karen paul emma mark lucy peter sarah george alice henry "
    "laura simon julia frank nora".split()
)
PLACES = tuple("store park school market beach station office garden".split())
GIFTS = tuple("drink gift letter ball basket kiss ticket bottle".split())
EVENTS = tuple("war siege reign voyage strike drought".split())
CENTURIES = tuple(str(century) for century in range(11, 20))
YEARS = tuple(f"{year:02d}" for year in range(2, 100))

FUNCTION_WORDS = tuple(", and then when while after went to were at left gave handed sent passed a lasted from".split())


def plain_words() -> tuple[str, ...]:
    """Every word but the special ones, each once, in a fixed order."""
    groups = [language.words() for language in LANGUAGES]
    groups += [sequence.members for sequence in SEQUENCES]
    groups += [FILLERS, NAMES, PLACES, GIFTS, EVENTS, CENTURIES, YEARS, FUNCTION_WORDS]
    return tuple(dict.fromkeys(word for group in groups for word in group))


def vocabulary() -> tuple[str, ...]:
    """Every token, in the order of its number in the tokenizer."""
    return SPECIALS + plain_words()
