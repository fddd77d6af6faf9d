"""The words of the embedded miniature GLUE, most frequent first."""

POSITIVE = tuple(
    """good great funny charming moving clever brilliant fresh warm lovely gripping bright smart beautiful sharp
    witty touching superb elegant thrilling tender inspired vivid honest graceful playful rich delightful engaging
    stunning heartfelt memorable dazzling magical poignant masterful radiant sublime exquisite spellbinding""".split()
)
NEGATIVE = tuple(
    """bad dull boring stale weak silly clumsy tired awful flat lazy messy shallow cheap bland tedious
    lifeless empty ugly annoying hollow clunky dreary pointless awkward sloppy predictable grating stupid
    tasteless forgettable muddled soulless dismal wooden insipid turgid vapid ghastly abysmal""".split()
)
ASPECTS = tuple(
    """film story plot acting cast script ending humor music dialogue pacing score hero villain
    camera direction editing opening romance action premise sequel comedy drama finale soundtrack""".split()
)
