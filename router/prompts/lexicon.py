"""Word tables that `features` counts by: literal, English, lower case."""

from __future__ import annotations


def _table(words: str) -> frozenset[str]:
    return frozenset(words.split())


NUMBERS: dict[str, int] = {
    "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10, "eleven": 11,
    "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16, "seventeen": 17, "eighteen": 18,
    "nineteen": 19, "twenty": 20, "both": 2, "pair": 2, "couple": 2, "twin": 2, "twins": 2, "trio": 3, "triplets": 3,
    "dozen": 12,
}  # fmt: skip
VAGUE_NUMBERS = _table("several many few multiple numerous various countless lots group row stack pile")
COLOURS = _table(
    "red green blue yellow purple orange black white gray grey brown pink cyan magenta violet indigo turquoise teal "
    "gold golden silver beige maroon navy crimson scarlet emerald azure ivory tan lime olive lavender coral"
)
MATERIALS = _table(
    "wooden wood metal metallic glass plastic stone marble leather fabric woolen wool paper ceramic brick concrete "
    "gold silver bronze copper steel iron rubber velvet silk denim fluffy furry striped dotted checkered spotted "
    "transparent shiny matte rusty"
)
SIZES = _table("small large big tiny little huge giant tall short long wide narrow thin thick enormous miniature")
SPATIAL = _table(
    "above below under beneath underneath over behind beside between inside outside near alongside atop opposite "
    "left right top bottom middle center centre corner foreground front facing surrounded"
)
SPATIAL_PHRASES = (
    "next to", "on top of", "in front of", "to the left", "to the right", "left of", "right of", "at the top",
    "at the bottom", "on the left", "on the right", "side by side", "in the middle", "in the center",
    "in the background",
)  # fmt: skip
NEGATIONS = _table(
    "no not without never none nobody nothing neither nor except excluding cannot lacking lacks missing absent devoid "
    "isnt arent doesnt dont isn't aren't doesn't don't won't can't wasn't weren't haven't hasn't didn't"
)
CONJUNCTIONS = _table("and with plus along holding wearing carrying riding")
ARTICLES = _table("a an the one another some each every")
UNIVERSALS = _table("all every each everyone everything only entire entirely whole")
COMPARISONS = _table("than more less same different similar identical larger smaller taller bigger unlike instead")
PEOPLE = _table(
    "man woman boy girl person people child children baby men women kid kids couple crowd family hand hands face "
    "portrait king queen soldier chef doctor student"
)
STYLES = _table(
    "style photo photograph photorealistic realistic painting watercolor oil sketch cartoon anime render rendering 3d "
    "cinematic illustration pixel impressionist surreal abstract minimalist vintage retro cyberpunk baroque poster "
    "detailed masterpiece hdr 4k 8k uhd bokeh dramatic lighting artstation hyperrealistic intricate unreal"
)
WRITING = _table(
    "text sign says saying reads reading written writes writing word words letter letters lettering caption title logo "
    "label slogan typography font inscription banner billboard signboard spelled spelling titled labeled labelled "
    "engraved printed headline"
)
MEDIA = _table(
    "picture image photo photograph drawing painting illustration sketch render rendering portrait shot view scene "
    "poster close-up closeup background foreground left right top bottom middle center centre side style"
)  # what follows an article without being an object of the picture
STOPS = _table(
    "of and with on in at by to from above below under over behind beside next near is are that which for , ;"
)
