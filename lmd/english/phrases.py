"""The fixed phrases of English that a layout turns on: relations, positions, negations, openings."""

from __future__ import annotations

import re

from .inflection import word_set

MAX_TOKENS = 1000
_PICTURE = r"(?: of the (?:image|picture|photo|frame|scene|canvas|painting|composition|screen|page))?"
_SIDE = r"(?:left|right)(?:[- ]hand(?= side))?(?: side| part| half| edge| end| third| area| section)?"
# (pattern over lower-case text joined by single spaces, relation); the first match of the list wins.
RELATIONS = [
    (r"(?:immediately |directly |just )?(?:to|on|at|from) the (?:immediate |far )?left(?:[- ]hand)?(?: side)? of", "left"),
    (r"(?:immediately |directly |just )?(?:to|on|at|from) the (?:immediate |far )?right(?:[- ]hand)?(?: side)? of", "right"),
    (r"left of", "left"),
    (r"right of", "right"),
    (r"(?:on|at) (?:either|both|each) sides? of", "around"),
    (r"(?:on|at|by|to) (?:the |one )?sides? of", "beside"),
    (r"(?:partly |partially |half )?(?:hidden|obscured|concealed|covered up|blocked) (?:by|behind|from view by)", "behind"),
    (r"hiding behind|(?:peeking|peering) (?:out )?from behind", "behind"),
    (r"(?:towering|looming) (?:over|above)|dwarfing", "towers"),
    (r"(?:dwarfed|overshadowed) (?:by|under|beneath|beside|next to)|(?:tiny|minuscule|insignificant) (?:compared to|against|before)", "dwarfed"),
    (r"(?:flanked|framed|bordered) by", "flanked"),
    (r"surrounded (?:by|with)|encircled by", "surrounded"),
    (r"(?:stacked |piled |balanced )?on (?:the )?top of|atop(?: of)?|at (?:the )?top of|on the edge of|on the back of", "on"),
    (r"on the (?:surface|head|back|roof|lap|shoulders?|nose|hood|lid|rim|seat|tip|peak|deck) of", "on"),
    (r"(?:high |directly |right |just )?above|hovering over|on the wall (?:above|over)", "above"),
    (r"(?:on|at|in) (?:the )?(?:bottom|foot|base) of", "bottom"),
    (r"(?:right |directly |just )?(?:below|beneath|underneath)", "below"),
    (r"(?:directly |right )?under", "under"),
    (r"over", "above"),
    (r"in front of|ahead of", "front"),
    (r"in back of|at the back of|behind", "behind"),
    (r"(?:in|on|at) the (?:very )?(?:middle|center|centre|heart|midst) of", "amid"),
    (r"in between|between|sandwiched between", "between"),
    (r"inside of|inside|within|into", "inside"),
    (r"(?:right |directly )?next to|beside|besides|alongside|close to|adjacent to|near to|near|nearby|by|against", "near"),
    (r"(?:all )?around", "about"),
    (r"in the (?:corner|vicinity) of|at the (?:side|edge|corner) of|across from|opposite to|opposite|toward|towards|"
     r"past|at", "near"),
    (r"onto|upon|on", "on"),
    (r"amidst|amid|among|amongst", "amid"),
    (r"along|across|through|throughout|down|up", "along"),
    (r"in", "in"),
    (r"(?:(?:much|far|slightly|twice as|a bit) )?(?:bigger|larger|taller|higher|wider|longer|fatter|heavier) than|"
     r"(?:(?:twice|three times|much|almost|nearly) )?as (?:big|large|tall|high) as", "bigger"),
    (r"(?:(?:much|far|slightly|a bit) )?(?:smaller|shorter|thinner|tinier|lower|narrower|lighter) than", "smaller"),
    (r"outside(?: of)?(?= (?:a|an|the|its|their|my|his|her)\b)", "near"),
    (r"during|before|after|until|since", "during"),
    (r"from|out of|off", "from"),
    (r"like|for|to|about|than|via|per", "loose"),
]  # fmt: skip
POSITIONS = [
    (r"from left to right", ("order", "left")),
    (r"from right to left", ("order", "right")),
    (r"from top to bottom", ("order", "above")),
    (r"from bottom to top", ("order", "below")),
    (r"(?:in|on|at|to|from) the (?:far |very |extreme )?(top|upper|bottom|lower)[- ]?(left|right|middle|cent(?:er|re))?"
     r"(?:[- ]hand)?(?: corner| side| part| half| edge| third| area| section)?" + _PICTURE + r"(?! of\b)", "corner"),
    (r"(?:at|in|on)? ?(?:top|upper|bottom|lower)[- ](?:left|right)(?: corner)?" + _PICTURE + r"(?! of\b)", "corner"),
    (rf"(?:in|on|at|to|from) the (?:far |very |extreme )?{_SIDE}" + _PICTURE
     + r"(?! (?:of|side|half|part|edge|hand|foot|arm|leg|paw|shoulder|wing|wall|lane|ear|eye|window|door|pocket)\b)", "side"),
    (r"(?:in|at) the (?:very |exact )?(?:middle|cent(?:er|re))" + _PICTURE + r"(?! of\b)", (0.5, 0.5)),
    (r"(?:in|into) (?:half|halves|pieces|two)(?= |$)", "skip"),
    (r"in (?:the|a|one) corner(?! of\b)", (0.15, None)),
    (r"(?:far away|far off|in the far distance|off in the distance)(?! from\b)", "far"),
    (r"the (?:left|right|top|upper|bottom|lower)(?:[- ]hand)? (?:half|side|part|third|corner)" + _PICTURE
     + r" (?:shows|has|contains|features|depicts|holds|is)(?= )|the (?:left|right|top|upper|bottom|lower) "
     "(?:half|side|part|"
     r"third)(?= (?:a|an|the|two|three|some)\b)", "corner"),
    (r"(?:as )?(?:viewed|seen|shot|photographed|taken) from (?:above|below|behind|afar|a distance|the \w+)", "view"),
    (r"(?:to|on|at) (?:its|their|his|her) (?:left|right)(?:[- ]hand side| side)?"
     r"(?! (?:hand|foot|arm|leg|paw|shoulder|wing|ear|eye|side)\b)", "own side"),
    (r"in (?:the )?(?:far |distant )?background" + _PICTURE, "background"),
    (r"(?:in|at|into) the (?:far )?(?:distance|back)" + _PICTURE + r"(?! of\b)", "background"),
    (r"in the foreground" + _PICTURE + r"|(?:in|at|up) (?:the )?front(?! of\b)", (None, 0.85)),
    (r"on (?:top|the top)(?! of\b)", "ontop"),
    (r"on (?:either|both|each) sides?(?! of\b)", "sides"),
    (r"(?:one |standing |sitting )?(?:by|at) (?:its|their|his|her) side", "beside"),
    (r"side by side|next to each other|next to one another|close together|together|in a (?:row|line)", "row"),
    (r"on top of (?:each other|one another)|stacked up", "stack"),
    (r"(?:facing|looking at|opposite|towards?) (?:each other|one another)|holding hands|hand in hand|back to back|"
     r"facing (?:left|right|forward|away)|face to face", "skip"),
]  # fmt: skip
NEGATIONS = (
    r"(?:is|are|was|were) (?:not|never) (?:any|a|an)\b|(?:do|does|did) not (?:have|contain|include|show|feature)(?: "
    "any)?|"
    r"has no|have no|(?:has|have) not (?:got )?any|with no|without(?: any)?|there (?:is|are) (?:no|not any)|free "
    "(?:of|from)|"
    r"devoid of|empty of|lacking|excluding|except(?: for)?|minus|instead of|rather than|but (?:not|no)|not any|nor|no|"
    r"avoid(?:ing)?|must not (?:have|contain|include)|should not (?:have|contain|include)|missing (?=an? |any |the )|neither(?: of (?:them|which|whom))?|none of (?:them|which|whom)"
)
OPENERS = (
    r"(?:please |can you |could you |i want |i would like |i'd like |let us |we "
    ")*(?:draw|paint|generate|create|make|show|"
    r"render|give|imagine|design|illustrate|produce|depict|see|picture|want|sketch)(?: me| us| to see)?(?= "
    "(?:a|an|the|one|two|"
    r"three|four|five|six|seven|some|several|\d+)\b)"
)


def _compile(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(?:{pattern})(?![\w'-])")


RELATIONS = [(_compile(p), v) for p, v in RELATIONS]
POSITIONS = [(_compile(p), v) for p, v in POSITIONS]
NEGATIONS, OPENERS = _compile(NEGATIONS), re.compile(OPENERS)
# Words that such a phrase can begin with; all others need no matching.
STARTS = word_set(
    """
    immediately directly just to on at from left right by partly partially half hidden obscured concealed covered
    blocked looming hiding peeking peering towering dwarfing dwarfed overshadowed tiny minuscule insignificant flanked framed bordered surrounded encircled stacked piled
    balanced atop high hovering above below beneath underneath under over in ahead behind between sandwiched inside
    within into next beside besides alongside close adjacent near nearby against all around across opposite toward
    towards past onto upon amidst amid among amongst along through throughout down up much far slightly twice a
    bigger larger taller higher wider longer fatter heavier three almost nearly as smaller shorter thinner tinier
    lower narrower lighter outside during before after until since out off like for about than via per the top upper
    bottom viewed seen shot photographed taken one standing sitting together side hand facing looking holding back
    face is are was were do does did has have with without there free devoid empty lacking excluding except minus
    instead rather but not nor no avoid avoiding must should missing neither none
    """
)
_TOKEN = re.compile(
    r"\"[^\"\n]{1,80}\"|(?<![\w'])'[^'\n]{1,60}'(?!\w)|\w+(?:'\w+)*(?:-\w+(?:'\w+)*)*|[.;:!?,()\[\]{}\"&]|\n"
)
_CONTRACTIONS = [
    (r"\bcan't\b|\bcannot\b", "can not"), (r"\bwon't\b", "will not"), (r"n't\b", " not"), (r"'re\b", " are"), (r"\b(there|it|that|he|she|who)'s\b", r"\1 is"),
    (r"\bparking lots?\b", "parking_lot"), (r"\bice cream\b", "ice_cream"), (r"\bno[ -]one\b|\bnobody\b", "no people"), (r"[“”]|''|``", '"'),
    (r"(?<!left )(?<!right )(?<!top )(?<!bottom )\bhalf an? (?!dozen)", "a half "), (r"\bnothing (?:else|but)\b", ""), (r"\bconstruction site\b", "construction_site"), (r"\bstill life\b", "still_life"),
    (r"\b(\w+)[- ]free\b(?= (?:street|room|road|sky|scene|desk|table|beach|park))", r"\1-free"),
    (r"\bblack[- ]and[- ]white (?=photo|photograph|picture|image|drawing|sketch|illustration)", "black_and_white "),
]  # fmt: skip


def tokens_of(text: str) -> list[str]:
    """Words and punctuation marks, contractions spelled out; at most MAX_TOKENS of them."""
    for pattern, spelled in _CONTRACTIONS:
        text = re.sub(pattern, spelled, text, flags=re.I)
    return _TOKEN.findall(text)[:MAX_TOKENS]
