"""The words of the embedded miniature GLUE; where frequency matters, most frequent first."""


def words(text: str) -> tuple[str, ...]:
    """Split a block of words into a tuple."""
    return tuple(text.split())


POSITIVE = words(
    """good great funny charming moving clever brilliant fresh warm lovely gripping bright smart beautiful sharp
    witty touching superb elegant thrilling tender inspired vivid honest graceful playful rich delightful engaging
    stunning heartfelt memorable dazzling magical poignant masterful radiant sublime exquisite spellbinding"""
)
NEGATIVE = words(
    """bad dull boring stale weak silly clumsy tired awful flat lazy messy shallow cheap bland tedious
    lifeless empty ugly annoying hollow clunky dreary pointless awkward sloppy predictable grating stupid
    tasteless forgettable muddled soulless dismal wooden insipid turgid vapid ghastly abysmal"""
)
ASPECTS = words(
    """film story plot acting cast script ending humor music dialogue pacing score hero villain
    camera direction editing opening romance action premise sequel comedy drama finale soundtrack"""
)

PEOPLE = words("teacher doctor farmer singer lawyer nurse pilot judge baker painter banker waiter soldier guard")
NAMES = words("anna bob carl dora emil fred gina hugo iris jack kate leon mary nick")
PLACES = words("rome paris london berlin madrid vienna tokyo boston")
MONTHS = words("january march april may june august october december")

# Nouns whose plural adds an s; the gender decides the reflexive.
MALE = words("boy uncle king father actor brother")
FEMALE = words("girl aunt queen mother actress sister")
THINGS = words("key box letter picture door table lamp chair bottle coat")

# Base -> past and participle of verbs that need an object.
TRANSITIVE = {
    "praise": "praised",
    "blame": "blamed",
    "visit": "visited",
    "invite": "invited",
    "follow": "followed",
    "help": "helped",
    "hire": "hired",
    "admire": "admired",
    "warn": "warned",
    "call": "called",
}
INTRANSITIVE = {
    "sleep": "slept",
    "arrive": "arrived",
    "laugh": "laughed",
    "smile": "smiled",
    "wait": "waited",
    "leave": "left",
}
# What a person does to a thing.
MAKING = {
    "paint": "painted",
    "sell": "sold",
    "buy": "bought",
    "repair": "repaired",
    "open": "opened",
    "photograph": "photographed",
    "design": "designed",
    "find": "found",
}
GOODS = words("bridge boat house statue piano clock garden tower wagon mirror")
