"""Word classes that the reader of free English prompts needs. Open classes are hints: an unknown word is a noun."""

from __future__ import annotations

from .inflection import word_set

DETERMINERS = word_set(
    "a an the some any this that these those my your his her its their our another each every both all"
)
POSSESSIVES = word_set("my your his her its their our")
# By value; every other list of number words is a part of this one.
NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
                "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty")  # fmt: skip
NUMBERS = {w: n for n, w in enumerate(NUMBER_WORDS)} | {
    "thirty": 30,
    "forty": 40,
    "fifty": 50,
    "sixty": 60,
    "seventy": 70,
    "eighty": 80,
    "ninety": 90,
    "hundred": 100,
}
# Words for a count that leave it open, and the count that is drawn.
VAGUE = {"several": 4, "few": 3, "multiple": 3, "various": 3, "numerous": 6, "many": 6, "some": 3, "plenty": 6}
COLLECTIVES = word_set(
    """
    group herd flock pack pile stack bunch bouquet crowd row line set collection cluster swarm school team pair
    band heap bundle string circle trio duo couple array assortment selection variety mix number fleet litter
    gaggle
    """
)
PRONOUNS = word_set("it them him her they he she itself themselves himself herself")
AUXILIARIES = word_set(
    """
    is are was were be been being has have had do does did can could will would should may might
    """
)
CONJUNCTIONS = word_set("and vs versus or nor but while plus as & whereas though although yet")
RELATIVES = word_set("that which who whose whom where when")
ADVERBS = word_set(
    """
    very exactly outside asleep awake afloat just only also then here still together away fast upside down up around
    nearby high low there too now not back forward apart alone outdoors indoors aloft overhead sideways
    underwater upright respectively perfectly
    """
)
NOT_ADVERBS = word_set(
    """
    lily family butterfly fly dragonfly jelly belly curly silly lovely holly ugly friendly elderly early woolly
    gully lonely ally bully hilly chilly firefly pebbly wooly lively deadly jolly wobbly only assembly italy
    jellyfish supply doily reply monopoly homely cuddly bubbly prickly heavenly
    """
)

COLOURS = word_set(
    """
    red orange yellow green blue purple pink brown black white gray grey violet indigo turquoise teal cyan
    magenta maroon beige ivory golden gold silver bronze copper crimson scarlet navy olive tan lavender lilac
    emerald ruby amber rainbow colourful colorful multicolored multicoloured transparent translucent striped
    spotted checkered
    """
)
ADJECTIVES = COLOURS | word_set(
    """
    big small large tiny huge giant gigantic enormous little tall short long wide narrow thin thick fat slim
    massive miniature mini oversized young old elderly ancient modern new vintage antique retro futuristic rusty
    dusty dirty clean shiny glossy matte dark bright pale light heavy soft hard smooth rough fluffy furry fuzzy
    hairy round square oval rectangular triangular flat curved straight crooked tilted open closed empty full
    half wooden metal metallic plastic glass stone brick marble ceramic leather paper cardboard steel iron
    concrete clay velvet silk cotton woolen knitted straw wicker rubber porcelain crystal happy sad angry cute
    adorable beautiful pretty ugly lovely scary friendly lazy sleepy tired wild tame fresh ripe rotten juicy
    delicious hot cold warm cool frozen icy snowy rainy sunny cloudy foggy misty stormy windy calm quiet busy
    crowded cozy cosy rustic elegant fancy luxurious simple plain single double lone lonely deep shallow high
    low left right front back top bottom main other same different broken cracked burning glowing smiling
    laughing hanging flying running sleeping sitting standing steaming floating shining sparkling boiling
    melting growing blooming rolling spinning dancing jumping moving rising setting rocking american english
    french german italian chinese japanese african indian asian european mexican russian spanish medieval gothic
    victorian tropical urban rural traditional typical classic royal magical mystical mysterious enchanted
    abstract realistic photorealistic surreal grand majestic bald bearded blonde blond muscular lush dense clear
    quaint sandy rocky grassy leafy muddy mossy dry wet spooky abandoned deserted overgrown bustling peaceful
    serene vast sleek sharp blunt fine smart wise brave pregnant baby adult male female human stray potted fried
    baked sliced chopped cooked raw sweet sour spicy salty vibrant vivid striking starry moonlit sunlit neon dim
    polished painted carved parked stuffed tropical arctic polar domestic electric digital robotic mechanical
    identical tilted inflated ornate cheerful nervous curious hungry proud graceful
    """
)

# Nouns that name where things are rather than a thing with a box.
ROOMS = word_set(
    """
    room bedroom bathroom kitchen livingroom classroom office attic basement cellar garage hallway hall corridor
    lobby lounge nursery studio workshop gym library museum restaurant cafe bar pub bakery shop store
    supermarket market mall hospital school church cathedral temple mosque theater theatre cinema stadium arena
    airport station hotel lab laboratory factory warehouse greenhouse barn stable bathhouse spa salon court
    courtyard interior apartment ballroom diner cafeteria tavern dungeon throne-room zoo aquarium circus gallery
    boutique pharmacy bank chapel
    """
)
OUTDOORS = word_set(
    """
    park garden yard backyard lawn field meadow prairie savanna savannah forest woods wood jungle rainforest
    desert dune beach shore shoreline seashore coast coastline bay harbor harbour port dock marina sea ocean
    lake river stream creek canal waterfront quay boardwalk pond lagoon waterfall swamp marsh wetland pool island mountain mountains hill hills
    hillside hilltop valley canyon cliff cliffs glacier volcano plain plains steppe tundra street road alley
    avenue boulevard highway lane path trail sidewalk pavement crosswalk intersection square plaza city town
    village downtown suburb neighborhood neighbourhood countryside farm farmland ranch vineyard orchard pasture
    playground campsite campus cemetery graveyard parking_lot lot rooftop roof bridge landscape seascape
    cityscape skyline scene scenery background setting environment world space galaxy universe planet surface
    stage runway racetrack track rink reef seabed terrace patio balcony porch driveway construction_site site
    battlefield zone area place corner horizon wilderness riverbank riverside lakeside seaside outdoors
    snowfield clearing grove hedge underwater heaven void fairground amusement-park parade festival
    """
)
MATTER = word_set(
    """
    snow grass sand water rain fog mist smoke sky clouds cloud stars star sunlight moonlight sunshine shade
    shadow shadows darkness air ground floor ceiling wall walls dirt mud ice soil moss ivy leaves pebbles wave waves
    storm thunderstorm wind dust fire flames foliage greenery vegetation sunset sunrise dusk dawn night day
    daytime nighttime morning evening afternoon noon midnight winter summer spring autumn fall twilight weather
    season gloom distance sun moon rainbow lightning light lights bokeh haze blizzard breeze traffic horizon
    """
)
PLACES = ROOMS | OUTDOORS | MATTER
PLACE_ENDINGS = ("room", "yard", "land", "scape", "woods", "side", "station", "shop", "store", "port", "field", "hall")
# Place nouns that are things when nothing says "in" or "at" before them.
BUILT = word_set(
    """
    church cathedral temple mosque barn bridge museum hotel school hospital factory greenhouse village town
    island mountain volcano waterfall farm hedge cliff planet stage cloud star moon sun rainbow fire roof dock
    hill market pool shop store bank playground chapel aquarium stable theater theatre windmill leaves
    bar corner lake pond wave wall cafe restaurant bakery
    """
)
# What a person or animal has, rather than holds: it stays in the owner's phrase.
PARTS = word_set(
    """
    beak claw talon jaw muzzle snout hoof hair beard mustache moustache eyes eye ears ear nose mouth teeth tail tails fur wings wing horns horn legs
    leg arms arm hand hands head face skin feathers feather spots stripes mane paws paw claws whiskers fins
    scales shell trunk tusks smile freckles tattoo tattoos braids ponytail muscles expression pattern patterns
    design handle handles drawers doors wheels sleeves buttons pages cover lid rim roof chimney petals thorns
    stem bark legs cushions windows door window sails sail engine headlights stitching label logo print details
    accents texture edges frame shutters walls curtains lights antlers spikes humps hump tentacles heads fangs fingers flippers bow ribbon background reflection
    shadow style colour color
    """
)
PLANT_PARTS = word_set("leaf branch petal root twig blossom bud thorn frond needle")
PLANTS = word_set(
    "tree oak palm pine rose tulip daisy sunflower lily orchid bush cactus fern plant vine branch twig stem bonsai lotus willow maple"
)
MACHINE_PARTS = word_set(
    "wheel headlight taillight tire spoke pedal knob drawer turret spire balcony mast propeller rivet gear string shelf button"
)
CLOTHES = word_set(
    """
    hat cap helmet scarf dress shirt t-shirt tshirt jacket coat suit tie skirt pants trousers jeans shorts shoes
    boots sneakers gloves glasses sunglasses crown robe uniform costume sweater hoodie vest cape cloak armor
    armour kimono bikini swimsuit apron socks mask headband headphones veil gown collar bowtie turban bandana
    outfit clothes clothing sandals heels backpack necklace earrings goggles pajamas overalls saddle monocle
    tuxedo blouse jersey beanie leotard tutu poncho
    """
)
GROWTH = word_set(
    "flower wildflower tree rock stone leaf bush wave hill shrub weed palm pine mushroom cactus beam panel rafter brick plank curtain"
)
CONTAINERS = word_set(
    """
    box basket bowl cup mug glass vase pot jar bag bucket cage nest drawer bathtub tub sink tank crib carrier
    suitcase backpack crate barrel bin can bottle teacup teapot pan oven fridge refrigerator wheelbarrow cart
    boat canoe rowboat raft ship car truck van bus train helicopter airplane plane carriage sled sleigh pram
    stroller cradle hammock tent pocket envelope chest trunk aquarium fishbowl terrarium sandbox shoe boot sock
    hat bed armchair chair shell cocoon egg bubble balloon cage bush tree trees mouth hand hands arms lap window
    doorway mirror frame cabinet cupboard locker shed doghouse kennel hole tray dish plate saucepan wagon
    kayak gondola cockpit
    """
)
SUPPORTS = word_set(
    """
    table desk shelf bookshelf bench counter countertop plate tray stand stool pedestal cart sill windowsill
    rack tablecloth mat rug carpet blanket bed platform board ledge mantel mantelpiece saucer branch fence cake
    nightstand dresser sideboard pizza tree chair sofa couch
    """
)
STYLE_NOUNS = word_set(
    """
    painting photo photograph picture image drawing sketch illustration cartoon render rendering artwork art
    poster print portrait watercolor watercolour mural engraving etching woodcut collage mosaic comic caricature
    snapshot shot close-up closeup view scene depiction animation anime fresco lithograph screenshot diorama
    still design pixel-art wallpaper postcard movie film still_life graffiti doodle infographic logo icon
    concept vector
    """
)
TIMES = word_set(
    """
    sunset sunrise dusk dawn night day daytime nighttime morning evening afternoon noon midnight winter summer
    spring autumn fall twilight christmas halloween weather storm rain snow fog mist sunlight moonlight shade
    background distance darkness blizzard thunderstorm easter festival
    """
)

PEOPLE = word_set(
    """
    man woman boy girl child kid baby person people lady gentleman guy toddler teenager adult king queen prince
    princess knight soldier police chef cook waiter waitress farmer doctor nurse teacher student astronaut
    pirate wizard witch clown dancer ballerina singer musician artist painter fisherman sailor cowboy ninja
    samurai monk nun priest bride groom couple family friend tourist skier surfer swimmer runner cyclist player
    athlete robot elf fairy vampire zombie angel mermaid superhero pedestrian grandmother grandfather mother
    father sister brother human firefighter officer policeman viking gnome snowman scientist worker builder
    mechanic pilot driver businessman photographer skateboarder
    """
)
ANIMALS = word_set(
    """
    cat dog kitten puppy horse pony donkey mule cow bull calf goat lamb sheep pig piglet chicken hen rooster
    chick duck duckling goose swan bird parrot owl eagle hawk falcon crow raven pigeon dove sparrow robin
    hummingbird peacock flamingo penguin seagull pelican stork ostrich turkey mouse rat hamster rabbit bunny
    hare squirrel hedgehog fox wolf bear panda koala kangaroo lion tiger leopard cheetah jaguar panther lynx
    elephant giraffe zebra hippo hippopotamus rhino rhinoceros monkey gorilla ape chimpanzee orangutan deer
    moose elk reindeer bison buffalo camel llama alpaca crocodile alligator lizard snake turtle tortoise frog
    toad fish shark whale dolphin octopus squid crab lobster seal walrus otter beaver raccoon badger skunk bat
    bee wasp ant butterfly moth ladybug spider beetle dragonfly snail worm dinosaur dragon unicorn phoenix
    griffin jellyfish starfish seahorse goldfish salmon trout corgi poodle husky labrador retriever terrier
    bulldog pug dachshund chihuahua dalmatian tabby stallion foal cub toucan chameleon iguana sloth meerkat
    lemur armadillo mole weasel ferret boar orca stingray clownfish grasshopper caterpillar
    """
)
ANIMATE = PEOPLE | ANIMALS
MASS = word_set(
    """
    bread food furniture clothing fruit rice pasta cheese butter milk coffee tea wine beer juice soup hay wood
    sushi jewelry money equipment luggage meat salad popcorn spaghetti ice_cream honey laundry art graffiti
    music pollen seaweed bamboo mustard ketchup syrup sauce jam chocolate cream sugar salt pepper oil gravy icing frosting cinnamon steam ivy broccoli garlic
    """
)

# "a painting of ...": pictures, and ways to look at things.
PICTURES = STYLE_NOUNS | word_set(
    """
    close closeup photography artwork selfie footage sculpture-photo closeups panorama mockup silhouette study
    reproduction series rendition interpretation recreation impression show views depictions representation
    """
) - word_set("icon film")
# What letters stand on.
CARRIERS = word_set(
    """
    sign poster banner billboard shirt t-shirt tshirt sweatshirt hoodie book label plaque board chalkboard blackboard
    whiteboard screen cake card mug cup hat cap note paper page newspaper letter scroll flag sticker tattoo signboard
    placard door wall box bottle graffiti logo badge storefront window marquee plate tombstone gravestone ticket button
    tag bag jersey tote display speech-bubble bubble shop map cover neon
    """
)
# Flat things that lie on the surface of another.
FLAT = word_set(
    """
    logo tattoo sticker label print decal emblem stamp badge inscription pattern star stripe patch graffiti drawing text
    symbol crest engraving mural stain scratch scar freckle mole barcode writing word letter number monogram motif
    """
)
# Pictures that are made to lie on something, and what any picture can be printed on.
LABELS = word_set("logo emblem sticker decal stencil monogram")
PRINTS = word_set("print icon mural graffiti doodle mosaic fresco engraving poster")
PRINTED = CLOTHES | word_set(
    """
    shirt sweatshirt jersey tote mug screen billboard banner flag card postcard stamp coin envelope phone tablet tombstone
    label poster badge tile canister surfboard skateboard helmet
    """
)
PRINTED_WITH_PRINTS = PRINTED | word_set(
    """
    wall pillow cushion button plate shield towel blanket door fence window building train bus truck van bridge vase bottle
    book notebook laptop box bag curtain rug floor
    """
)
PRINTING = word_set("printed painted drawn embroidered etched engraved carved tattooed stamped stitched sewn sprayed")
# Counts in a noun of their own: "a pair of shoes". (number, whether it is a guess)
SETS = {"couple": (2, False), "pair": (2, False), "trio": (3, False), "duo": (2, False), "quartet": (4, False),
        "hundreds": (12, True), "thousands": (12, True), "lots": (6, True), "lot": (6, True), "plenty": (6, True),
        "tons": (6, True), "number": (4, True), "handful": (4, True)}  # fmt: skip
# Words that a tagger takes for nouns and that name nothing in a picture.
NOT_THINGS = word_set(
    """
    something nothing anything everything none lot lots kind sort way front back top bottom left right middle center
    centre side close thing things stuff ca side-by-side home today background foreground distance more less much many
    any such same own else one's few pop touch hint sense splash burst array casting element dash glimpse trace wash mix blend half full solo standing sitting viewer looking view pov
    """
)
# Adjectives that change what a box looks like; others that a comma cuts off stay in the overall prompt.
PLAIN = COLOURS | word_set(
    """
    big small large tiny huge giant little tall short long wide old young wooden metal plastic glass stone round square
    open closed broken empty striped golden leather brick thin thick fat new
    """
)
_THINGS = word_set(
    """
    table star flower watch sign poster painting drum can pin light-bulb lamp card photo-frame book letter map magazine
    newspaper postcard ball cube sphere cone cylinder pyramid triangle circle rectangle square pentagon hexagon oval
    heart diamond rhombus block toy figure figurine doll statue sculpture bust skull trophy machine engine wheel
    fire-hydrant hydrant meter mailbox clock bell flag banner billboard screen monitor phone keyboard guitar violin piano
    trumpet harp cello flute fountain throne altar pedestal pillar column arch gate fence ladder door window chimney swing
    slide seesaw bench stool crate stall booth stand float balloon kite rocket robot vase pot jar lid teapot kettle
    ornament wreath garland bouquet tent umbrella cane staff wand sword shield axe spear bow arrow gun rifle cannon anchor
    chain rope net broom mop shovel rake hammer saw drill wrench screwdriver nail screw key lock coin ring crystal gem
    pearl egg nest shell bone feather leaf seed acorn mushroom cactus fern bush hedge log stump branch trunk rock boulder
    pebble iceberg island-top snowball snowflake bubble candle torch lantern firework bonfire campfire comet meteor asteroid
    planet moon sun earth satellite spaceship ufo cake pie pizza burger sandwich noodle ramen sushi pancake waffle cookie
    donut doughnut bagel bread loaf baguette cheese sausage steak bacon egg omelette apple orange banana lemon lime grape
    pear peach plum cherry berry strawberry blueberry raspberry melon watermelon pineapple mango coconut carrot potato
    tomato onion pepper cucumber corn broccoli lettuce cabbage pumpkin nut bowl plate dish tray glass cup mug bottle
    stack pile toast spiral-staircase staircase stairs traffic-light streetlight mirror frame canvas easel logo sticker
    label tattoo emblem stamp icon print decal telephone pen pencil crayon brush eraser ruler scissors stapler notebook
    battery plug socket switch cable remote controller console joystick drone camera tripod microphone speaker headset
    router printer scanner calculator tablet laptop computer wave volcano windmill helmet mask saddle pillow cushion
    blanket quilt towel curtain carpet rug mat basket bag suitcase trunk briefcase wallet purse umbrella tree palm pine oak
    rose tulip daisy sunflower lily orchid pad lotus barrel hot-dog dog-house snowman scarecrow gnome stall spade quill goose
    soup salad stew meal plane boot iron board drawing mammoth macaw trampoline hammock hose cab van suv vehicle lorry jet aircraft patch brand emblem crest monogram stain stop_sign ledge perch tv television smartphone microwave badge gift fireplace feather
    """
)
# Two-word nouns that the word table lacks.
COMPOUNDS = frozenset(
    (
        "street light", "traffic light", "christmas light", "string light", "desk light", "ceiling light", "ceiling fan",
        "hot dog", "soda can", "watering can", "tin can", "beer can", "trash can", "garbage can", "bowling pin",
        "fire hydrant", "stop sign", "parking meter", "street lamp", "floor lamp", "wall clock", "wall art",
    )
)  # fmt: skip
# What a face or a hand does: nothing that a box could hold.
GESTURES = word_set(
    "mouth smile grin frown blush tongue expression teeth peace thumbs pose gaze stare sign-language wink"
)
# Too large to be carried by a person.
LARGE = word_set(
    """
    car motorcycle motorbike bicycle bike bus truck van train boat ship airplane plane helicopter spaceship tank sofa
    couch bed table desk chair bench throne piano house castle tower tree fountain statue door window wall fence
    bookshelf cabinet wardrobe fireplace tent carriage rocket mecha robot vehicle scooter bathtub sink refrigerator
    stove counter altar stairs staircase pillar column arch swing slide tractor wagon
    """
)
# Nouns whose kind the word table gives otherwise than pictures need it.
KINDS: dict[str, str] = {
    **dict.fromkeys(ROOMS | OUTDOORS, "place"),
    **dict.fromkeys(MATTER | TIMES, "weather"),
    **dict.fromkeys(MASS, "food"),
    **dict.fromkeys(
        word_set("money equipment art graffiti music pollen steam laundry hay wood clothing dust soap"), "matter"
    ),
    **dict.fromkeys(PARTS, "body"),
    **dict.fromkeys(BUILT - MATTER, "built"),
    **dict.fromkeys(SUPPORTS | CONTAINERS, "thing"),
    **dict.fromkeys(_THINGS, "thing"),
    **dict.fromkeys(
        CLOTHES - {"crown"} | word_set("boot shoe sneaker sandal heel glove sock earring raincoat pajama"), "worn"
    ),
    **dict.fromkeys(PEOPLE, "person"),
    **dict.fromkeys(ANIMALS, "animal"),
    **dict.fromkeys(word_set("stone pebble cloud"), "object"),
    **dict.fromkeys(
        word_set(
            "chess game tennis soccer football basketball song fantasy shade filter ray capture scene view reflection melody silence beauty time breeze glow"
        ),
        "idea",
    ),
    **dict.fromkeys(
        word_set("voice sound smoke steam fog mist haze sunlight light darkness shadow fire flame explosion"), "weather"
    ),
    **dict.fromkeys(word_set("blood sweat tear mud asphalt neon tile glitter confetti foam spray puddle"), "matter"),
    **dict.fromkeys(word_set("band choir team crowd army audience"), "group"),
    **dict.fromkeys(word_set("mars shrine battlefield classroom throne-room"), "place"),
}
