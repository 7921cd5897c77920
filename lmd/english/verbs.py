"""The verbs of image prompts and their forms, enough to tell "a dog runs" from "dog treats"."""

from __future__ import annotations

from .inflection import word_set

_REGULAR = """
    sit stand lie lay rest lean hang float fly hover swim run walk jump leap climb crawl sleep nap sleep play dance sing
    smile laugh cry look stare gaze watch chase follow hold carry push pull throw catch kick hit eat drink read write
    draw cook bake ride drive sail row surf ski skate cross graze perch nest hide peek emerge rise fall grow bloom
    shine glow burn melt drip flow wait stretch curl kneel crouch squat bend reach touch hug kiss pet feed wave point
    face surround cover fill contain show depict feature include display wear stack balance lounge relax roam wander
    soar glide drift dive splash spin roll bounce swing slide open close cut chop pour serve sell buy build fix wash
    clean paint sculpt pose talk speak argue fight wrestle race compete march gather stroll hike fish hunt prowl bark
    howl meow roar chew lick sniff dig scratch bathe shower sunbathe study type work sneak charge land orbit circle
    cast block protect guard attack lift drag tow park dock moor travel pass approach enter return meditate pray
    juggle conduct perform celebrate toast blow camp explore juggle knit sew iron sweep mow plant water harvest pick
    blossom tower loom overlook border flank adjoin support frolic gallop trot nibble munch snuggle cuddle lurk stalk
    make tie bathe wade paddle kayak cycle skateboard snowboard use see go come observe examine inspect hand offer give
    """
_PAST = word_set(
    """
    sat stood lay hung flew swam ran slept sang held threw caught ate drank wrote drew rode drove fell grew
    shone knelt bent hid wore cut lit set put placed located positioned situated seated perched parked mounted
    stacked arranged surrounded covered filled decorated topped dressed wrapped tied attached painted made built
    scattered piled lined flanked crossed stuck tucked balanced suspended curled docked moored anchored leaned
    leant shown seen laid spread planted rested posed stretched gathered framed displayed illuminated carved
    accompanied followed chased pulled pushed stored kept reflected raised lowered sprawled strewn nestled
    """
)
# Verbs whose object the subject sits on, wears, contains, or simply has close by.
RIDE = word_set("riding rides ride rode mounting straddling")
STARE = word_set("looking staring gazing howling pointing barking looks stares gazes howls points barks")
CROSS = word_set("crossing crosses cross climbing climbs climb")
WEAR = word_set("wearing wears wear wore dressed clad")
HAVE = word_set(
    """
    has have had having containing contains contain featuring features feature including includes include
    showing shows show depicting depicts depict displaying displays filled topped decorated covered comprising
    serving holds
    """
)
# Transitive on their own: "V NP" puts the noun close to the subject. Every other verb followed by a noun does as well.
STATIC = word_set(
    """
    missing
    sitting standing lying laying resting leaning hanging placed located positioned situated seated perched
    parked mounted stacked arranged facing being hung sits stands lies rests leans hangs lay sat stood set put
    left waiting made built laid balanced looking holding stuck tucked suspended attached shown seen scattered
    piled lined casting surrounding covering filling containing tied painted covered surrounded filled decorated
    displayed kept stored showing growing using wearing having making
    """
)
_VOWELS = "aeiou"
_DOUBLE = word_set("sit run swim nap hug pet hit cut chop dig spin skip stir set put get knit sun mop drag hop fit")


def _ing(verb: str) -> str:
    if verb in _DOUBLE:
        return verb + verb[-1] + "ing"
    if verb.endswith("ie"):
        return verb[:-2] + "ying"
    if verb.endswith("e") and not verb.endswith(("ee", "oe", "ye")):
        return verb[:-1] + "ing"
    return verb + "ing"


def _s(verb: str) -> str:
    if verb.endswith("y") and verb[-2] not in _VOWELS:
        return verb[:-1] + "ies"
    return verb + ("es" if verb.endswith(("s", "sh", "ch", "x", "z", "o")) else "s")


BASE = word_set(_REGULAR)
ING = {_ing(v): v for v in BASE}
THIRD = {_s(v): v for v in BASE}
PAST = _PAST
# Nouns in -ing that follow another noun without being its action.
NOUNS_ING = word_set(
    """
    ring king wing string spring sling building painting drawing ceiling wedding clothing lightning earring
    duckling dumpling pudding railing awning evening morning thing stocking carving seedling sapling starling
    herring swing icing frosting stuffing filling parking lighting dining living
    """
)


def ing_form(word: str) -> str | None:
    """The -ing form of any verb form ("runs" -> "running"); None for a past form or a word that is no known verb."""
    low = word.lower()
    if low in ING or (low.endswith("ing") and len(low) > 5 and low not in NOUNS_ING):
        return low
    verb = THIRD.get(low) or (low if low in BASE else None)
    return _ing(verb) if verb else None


# Verbs whose object follows without an article in lists of tags: "holding sword".
TRANSITIVE = frozenset(
    _ing(v)
    for v in word_set(
        """
        hold carry push pull throw catch kick hit eat drink read write draw ride drive play touch hug kiss pet feed use
        wear fight face chase watch cut build lift drag sell serve hand give offer blow
        """
    )
)

SHOWING = word_set(
    """
    shows show showing depicts depict depicting captures capture capturing features feature featuring presents present
    presenting displays portrays portray illustrates showcases showcase centers focuses reveals contains includes is
    """
)
