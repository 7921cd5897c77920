"""The words of image prompts that say how a picture is made, not what is in it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from . import inflection, lexicon
from .inflection import word_set
from .vocabulary import SOLID, kind, speech

# Any of them makes a short piece of a prompt a piece of style.
STYLE = word_set(
    """
    still_life picture avatar masterpiece quality hdr uhd hd dslr hyperrealistic hyperrealism photorealistic photorealism realistic realism photoreal
    cinematic bokeh lighting lit artstation deviantart pixiv cgsociety behance dribbble octane unreal blender vray redshift
    cinema4d c4d zbrush maya houdini render rendered rendering renders raytraced raytracing volumetric highres absurdres
    lowres hires resolution megapixel detailed details detail hyperdetailed ultradetailed intricate ultra insanely
    stylized stylised aesthetic aesthetics palette composition composited trending award-winning award winning
    photography photoshoot photographic photograph photo photos cgi 3d 2d illustration illustrated illustrator artwork
    painting painted paintings digital watercolor watercolour gouache acrylic charcoal pastel crayon ink lineart line-art
    sketch sketched drawing drawn anime manga comic cartoon cartoony chibi ghibli pixar disney dreamworks nintendo
    impressionism impressionist impressionistic cubism cubist surrealism surreal surrealistic expressionism expressionist
    baroque rococo minimalism minimalist minimal minimalistic maximalism maximalist abstract vaporwave synthwave retrowave
    lofi cyberpunk steampunk dieselpunk solarpunk art deco nouveau bauhaus ukiyo-e isometric low-poly lowpoly poly voxel pixel
    pixelated pixel-art vector flat sticker cel-shaded cel shaded shading shaded shader cover lens lenses macro telephoto
    wide-angle wide-shot wideangle fisheye tilt-shift tilt shift dof depth blur blurry blurred exposure film grain grainy
    kodak fujifilm portra polaroid kodachrome ektachrome leica nikon canon hasselblad sony camera iphone gopro imax
    anamorphic monochrome monochromatic sepia grayscale greyscale duotone vibrant vivid saturated desaturated colorful
    colourful colors colours color colour tones tone hues hue toned graded grading contrast sharp focus focused smooth crisp
    glossy glow hyper super highly very extremely best top high elegant ethereal epic moody mood atmosphere atmospheric
    dramatic ambient symmetrical symmetry symmetric centered centred concept conceptart keyframe key visual splash
    wallpaper poster matte still dnd fantasy sci-fi scifi fiction science gothic dark horror noir vintage retro nostalgic
    dreamy dreamlike whimsical surrealist magical mystical mysterious creepy ominous cozy cosy rays ray tracing traced god
    backlight backlit backlighting rim spotlight golden hour studio professional amateur editorial fashion vogue magazine
    national geographic closeup close-up portrait headshot angle view shot perspective framing frame pov profile
    simple plain clean soft hard bright warm cold cool muted neon white black background backgrounds backdrop bg texture
    textures textured pattern design logo icon emoji medium medium-shot upper lower full body half-body fullbody
    style styles styled aesthetically inspired version edition render-engine engine raw 35mm 50mm 85mm analog analogue
    sfw nsfw safe general wip rutkowski artgerm wlop mucha greg alphonse beeple kawaii cute claymation plasticine origami
    papercut storybook childrens children's scale luts lut outline outlined outlines negative space product architectural
    digest architecture interior dynamic pose posing splashes splash-art oil canvas pencil pen brush brushstrokes strokes
    impasto fresco engraving etching woodcut linocut screenprint stencil graffiti mural mosaic collage halftone
    ad advertisement commercial stock 4k 8k 16k 2k 1080p 720p hq uhq hyperreal lifelike true-to-life unsplash flickr
    pinterest instagram tumblr weta ilm movie anime-style trending-on-artstation feng zhu magali villeneuve dramatic-lighting
    sharpness clarity definition intense light lights particles particle effects effect fx vfx post-processing processing
    screenshot gameplay game asset character sheet reference turnaround ultra-realistic ultrarealistic ultra-detailed
    hyper-realistic hyper-detailed photo-realistic high-quality high-resolution fine tarot card illumination award-wining
    trend visualization iridescent luminous luminescent shadow shadows chiaroscuro tenebrism silhouette reflections
    reflection caustics subsurface scattering occlusion global hard-edge edge dramatic-light masterful
    """
)
# A piece that ends with one of them is style whatever stands before it, if it has no article: "white background".
STYLE_HEADS = word_set(
    """
    lighting light lights background backdrop backgrounds style styles render renders rendering art artwork illustration
    photography photo photograph painting palette colors colours tones tone hues hue mood atmosphere aesthetic composition
    quality resolution detail details focus lens blur exposure angle shot view perspective engine rays tracing contrast
    shading shader grain hour design concept poster wallpaper visual still portrait closeup close-up vibe vibes texture
    textures pose photoshoot sketch drawing anime manga cartoon realism surrealism hyperrealism expressionism impressionism
    effect effects space field scattering illumination occlusion fiction fantasy cover mm sheet key body-shot
    trending artstation winning particles score theme reflections shadow shadows film anaglyph splash
    expression architecture pattern digest body era lofi
    """
)
# Words that alone make no piece a piece of style: they are things or places as well.
WEAK = word_set(
    """
    light lights white black golden bright warm cold cool soft hard dark neon simple plain clean portrait frame camera card
    magazine character game film studio canvas pen pencil brush logo icon emoji poster sticker sony cover screenshot lens
    mural mosaic graffiti ink oil silhouette shadow shadows particles pattern half full top high lower upper very key line
    body edge space science cute elegant magical mystical epic fine vintage retro colorful colourful wallpaper god medium
    hyper super smooth glossy sharp shot tilt shift winning interior fashion architecture product stock pose posing
    reflection reflections texture flat mysterious creepy dreamy whimsical nostalgic cozy cosy cyberpunk steampunk gothic
    moody dramatic ethereal fantasy golden dynamic intense mascot tone color colour spotlight profile raw still splash
    glow movie scale sheet reference effect effects rim rays ray view angle iridescent focused lit backlit luminous
    character perspective painted sketch drawing painting photo photograph photos ad game asset version edition design
    perspective general safe space inspired
    """
)
_NUMBER = re.compile(r"\d[\d.]*(?:k|mm|d|p|px|s|st|nd|rd|th|fps|x\d+)?")
_OPENS = re.compile(
    r"(?:(?:digital |concept |cover |fan )?(?:art|artwork|painting|illustration|photo|photograph|photography|drawing|design|render)"
    r"|painted|illustrated|drawn|photographed|directed|inspired|made|designed|created|rendered|written) by\b"
    r"|(?:trending|featured|popular) (?:on|in)\b|(?:shot|filmed|captured|rendered) (?:on|with|in) (?!an?\b|the\b)"
    r"|in (?:the |an? )?(?:[\w-]+ )?style (?:of|by)\b|(?:shallow )?depth of field|work of art|rule of thirds|(?:oil|acrylic|ink|pencil|"
    r"watercolou?r|charcoal) on\b|inspired by\b|reminiscent of\b|from the (?:movie|film|game|video game|series|show|anime|book)\b"
    r"|as seen on\b|(?:art|photo|character|concept) for\b"
)


def is_number(word: str) -> bool:
    """True for a number in digits."""
    return bool(_NUMBER.fullmatch(word))


def opens_style(text: str) -> bool:
    """Does a piece of a prompt begin with "art by", "trending on", "in the style of", "oil on"?"""
    return bool(_OPENS.match(text))


def is_style(words: Sequence[str]) -> bool:
    """Is a piece of a prompt between commas about how the picture is made? `words` are in lower case."""
    if opens_style(" ".join(words)):
        return True
    if words and words[0].endswith("ing") and "v" in speech(words[0]) and words[0] not in STYLE:
        return False
    if not words or words[0] in lexicon.DETERMINERS | {"no", "not", "without"} or len(words) > 8:
        return False
    if all(is_number(w) for w in words):
        return any(not w.isdigit() for w in words) or len(words) == 1
    content = [w for w in words if w not in _LINKS and not is_number(w)]
    if not content or words[0] in lexicon.NUMBERS or (words[0].isdigit() and len(words) > 1):
        return False
    strange = [w for w in content if w not in STYLE]
    strong = any(w in STYLE and w not in WEAK for w in content)
    if not strange:
        return strong or content[-1] in STYLE_HEADS or all(speech(w)[:1] in ("j", "r", "") for w in content)
    if any(solid_or_place(w) for w in strange) or any(w in _PLACING for w in words):
        return False
    return content[-1] in STYLE_HEADS or (strong and len(strange) <= len(content) / 2)


def solid_or_place(word: str) -> bool:
    """Could the word be a thing or a place in the picture?"""
    one = inflection.singular(word) or word
    return speech(one)[:1] == "n" and kind(one) in SOLID | {"place", "built", "body", "weather"}


_LINKS = frozenset(
    ("of", "by", "on", "the", "and", "in", "a", "an", "with", "from", "for", "at", "&", "very", "to", "as")
)
_PLACING = frozenset(("under", "behind", "beside", "between", "above", "below", "near"))
