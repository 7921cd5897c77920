"""How big things usually are beside each other, softened so that an ant beside an elephant still gets a box."""

from __future__ import annotations

import math

from ..english import lexicon
from ..english.inflection import word_set
from ..english.scene import Thing

_SIZES = {
    0.17: """
        ant bee wasp ladybug spider beetle snail butterfly moth dragonfly apple orange lemon lime egg pear peach
        plum strawberry cherry coin ring key spoon fork knife pen pencil candle cookie pancake olive tomato
        potato carrot onion mushroom leaf flower rose tulip daisy button die marble shell stone pebble star bulb
        match cupcake muffin donut banana kiwi grape nut acorn feather feathers dart badge bead chick earring
        seashell sandwich
    """,
    0.24: """
        cup mug glass bottle bowl book phone smartphone camera clock watch vase can jar plate saucer teacup
        teapot ball hat shoe boot sock glove mouse hamster frog toad bird sparrow robin hummingbird pigeon dove
        crow parrot duckling squirrel hedgehog kitten rabbit bunny crab fish goldfish toy doll balloon lantern
        notebook tablet cube block sphere cone pyramid cylinder basket bag purse pot kettle pan toaster radio
        violin trumpet pumpkin cake pie pizza burger hamburger bread loaf teddy skull crown helmet mask pillow
        cushion bucket box present gift snake lizard turtle pad scissors saucepan candlestick tray hammer mirror
        plant laptop keyboard cactus
    """,
    0.33: """
        cat dog puppy fox chicken hen rooster duck goose owl eagle hawk penguin seagull swan flamingo peacock
        monkey goat lamb sheep pig child kid baby boy girl toddler chair stool lamp backpack suitcase guitar
        television tv monitor computer bicycle bike scooter skateboard drum umbrella kite sign statue microwave
        printer barrel crate robot snowman painting poster window shelf painting fountain mailbox dragonfly
        octopus seal otter beaver koala saddle wheelbarrow stove sink branch log telescope easel hydrant ladder
        surfboard saucer swing perch tricycle
    """,
    0.43: """
        man woman person people lady gentleman horse cow bear lion tiger zebra deer panda gorilla kangaroo table
        desk bench sofa couch armchair bed bathtub piano refrigerator fridge wardrobe bookshelf dresser cabinet
        fireplace car taxi motorcycle tent door canoe rowboat kayak sled carriage tree rug carpet counter shark
        dolphin crocodile camel donkey moose bull unicorn knight astronaut king queen wizard tractor wall fence
        boat tank buffalo elk walrus sailboat stage ramp
    """,
    0.56: """
        elephant giraffe whale dinosaur dragon bus truck van train helicopter airplane plane ship yacht house
        cabin cottage barn hut church windmill lighthouse bridge tower castle spaceship rocket submarine
        rhinoceros hippopotamus rhino hippo iceberg planet wave village pool
    """,
    0.66: """
        building skyscraper mountain volcano palace cathedral mansion temple pyramid cliff island stadium hill
        city
    """,
}  # fmt: skip
_TALL = word_set(
    """
    bottle vase candle lamp tree tower lighthouse skyscraper building giraffe man woman person people lady
    gentleman child boy girl baby toddler kid robot snowman penguin flamingo ladder door refrigerator fridge
    wardrobe statue astronaut king queen knight wizard witch rocket cactus owl rose tulip flower guitar
    candlestick fountain column pillar princess soldier nurse doctor teacher chef waiter farmer pirate monk
    kangaroo windmill glass pencil pen spoon fork knife parrot kite streetlamp balloon mirror plant pineapple
    carrot clown dancer ballerina cowboy ninja samurai fisherman prince fridge elf fairy angel mermaid officer
    policeman violin hydrant bookshelf meerkat ostrich heron stork
    """
)
_WIDE = word_set(
    """
    car taxi bus truck train van bed sofa couch table desk bench bridge boat ship canoe rowboat crocodile
    alligator snake fish shark whale dolphin airplane plane helicopter motorcycle bicycle bike cow pig tank
    submarine rug carpet shelf counter countertop log branch plate tray keyboard bathtub cat dog fox lizard crab
    turtle laptop skateboard pie pizza stage island house barn village city fence wall mountain hill horse tiger
    lion sheep bear hippopotamus rhinoceros rhino hippo walrus seal otter yacht tablecloth mat blanket
    windowsill sill sink couch piano limousine surfboard saucer ramp wave pancake hedgehog mouse sword salmon
    spaceship dinosaur dragon elephant pool pad lily moth eagle ledge bowl boot perch tractor sled
    """
)
_VERY = {
    "bridge": 2.4, "branch": 2.6, "log": 2.6, "train": 2.4, "snake": 2.4, "saucer": 2.6, "plate": 2.4, "tray":
    2.4, "windowsill": 4.0, "sill": 4.0, "shelf": 3.0, "rug": 2.6, "mat": 2.6, "carpet": 2.6, "tablecloth": 2.2,
    "table": 1.9, "desk": 1.9, "bench": 2.0, "counter": 2.6, "countertop": 3.0, "perch": 3.0, "ledge": 4.0,
    "fence": 2.6, "wall": 2.6, "bottle": 0.42, "candle": 0.38, "lighthouse": 0.42, "tower": 0.42, "man": 0.48,
    "woman": 0.48, "person": 0.48, "ladder": 0.4, "pencil": 0.3, "giraffe": 0.55, "bus": 2.0, "sofa": 1.8,
    "pancake": 2.0, "lamp": 0.5, "skyscraper": 0.42, "cat": 1.05, "dog": 1.15, "bear": 1.15, "spoon": 0.35,
    "fork": 0.35, "knife": 0.35, "tablet": 0.8, "bowl": 1.5, "canoe": 2.6, "surfboard": 2.6, "crocodile": 2.8,
    "alligator": 2.8,
}  # fmt: skip
_SIZE_OF = {word: size for size, text in _SIZES.items() for word in text.split()}
_BIGGER = {
    "tiny": 0.6, "miniature": 0.65, "small": 0.8, "little": 0.8, "mini": 0.7, "big": 1.15, "large": 1.2, "huge":
    1.4, "giant": 1.45, "gigantic": 1.45, "enormous": 1.45, "massive": 1.4, "baby": 0.75, "oversized": 1.3,
    "tall": 1.1,
}  # fmt: skip
FLYING = word_set(
    """
    airplane plane helicopter kite drone bee butterfly dragonfly rocket cloud sun moon star rainbow ufo seagull
    eagle hawk balloon spaceship
    """
)


CONCRETE = frozenset(_SIZE_OF)  # nouns of things that can be seen and have a usual size


def size_of(thing: Thing) -> tuple[float, float]:
    """Width and height of one instance as shares of a square canvas's side, before everything is fitted."""
    head = thing.head.lower().split("-")[-1]
    kind = thing.before[-1].lower() if thing.before else ""  # "a mountain range" is of a mountain's size
    size = (
        _SIZE_OF.get(head)
        or _SIZE_OF.get(kind)
        or (0.43 if head.endswith(("man", "woman")) or head in lexicon.PEOPLE else 0.31)
    )
    aspect = _VERY.get(head) or (0.55 if head in _TALL or head in lexicon.PEOPLE else 1.5 if head in _WIDE else 0.95)
    for word in thing.before:
        size *= _BIGGER.get(word.lower(), 1.0)
    aspect *= 0.75 if "tall" in thing.before else 1.3 if {"long", "wide"} & set(thing.before) else 1.0
    size *= thing.scale
    return size * math.sqrt(aspect), size / math.sqrt(aspect)
