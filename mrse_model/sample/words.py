"""The vocabulary of the generated sample catalogue: what is sold, and how shops and shoppers word it.

Titles and queries word one attribute in several ways ("polka dot", "spotted"), so that matching words alone falls
short and the relation has to be learned. Brands are invented.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ItemType:
    """One kind of product. Its image is `sample_images.SHAPES[name]`."""

    name: str
    path: tuple[str, str, str]
    titles: tuple[str, ...]
    queries: tuple[str, ...]
    price: float  # median


TYPES = (
    ItemType(
        "tshirt", ("Clothing", "Tops", "T-Shirts"), ("T-Shirt", "Tee", "Crew Neck Top"), ("t-shirt", "tee shirt"), 19
    ),
    ItemType("shirt", ("Clothing", "Tops", "Shirts"), ("Shirt", "Button-Down", "Blouse"), ("shirt", "button up"), 39),
    ItemType(
        "dress", ("Clothing", "Dresses & Skirts", "Dresses"), ("Dress", "Gown", "Frock"), ("dress", "summer dress"), 59
    ),
    ItemType(
        "skirt", ("Clothing", "Dresses & Skirts", "Skirts"), ("Skirt", "A-Line Skirt"), ("skirt", "midi skirt"), 35
    ),
    ItemType(
        "trousers", ("Clothing", "Bottoms", "Trousers"), ("Trousers", "Pants", "Slacks"), ("trousers", "pants"), 49
    ),
    ItemType("shorts", ("Clothing", "Bottoms", "Shorts"), ("Shorts", "Bermudas"), ("shorts", "short pants"), 25),
    ItemType("sneaker", ("Shoes", "Flat Shoes", "Sneakers"), ("Sneakers", "Trainers"), ("sneakers", "gym shoes"), 69),
    ItemType("boot", ("Shoes", "Winter Shoes", "Boots"), ("Boots", "Ankle Boots"), ("boots", "winter shoes"), 99),
    ItemType(
        "heel", ("Shoes", "Dress Shoes", "High Heels"), ("Pumps", "Stilettos", "Heels"), ("heels", "high heels"), 79
    ),
    ItemType(
        "handbag", ("Bags", "Everyday Bags", "Handbags"), ("Handbag", "Tote", "Shoulder Bag"), ("handbag", "purse"), 59
    ),
    ItemType("backpack", ("Bags", "Everyday Bags", "Backpacks"), ("Backpack", "Daypack"), ("backpack", "rucksack"), 49),
    ItemType(
        "suitcase", ("Bags", "Luggage", "Suitcases"), ("Suitcase", "Trolley Case"), ("suitcase", "cabin luggage"), 119
    ),
    ItemType("cap", ("Accessories", "Headwear", "Caps"), ("Cap", "Snapback"), ("cap", "baseball hat"), 19),
    ItemType("umbrella", ("Accessories", "Rainwear", "Umbrellas"), ("Umbrella", "Parasol"), ("umbrella", "brolly"), 25),
    ItemType("mug", ("Kitchen", "Drinkware", "Mugs"), ("Mug", "Cup"), ("mug", "coffee cup"), 12),
    ItemType("teapot", ("Kitchen", "Drinkware", "Teapots"), ("Teapot", "Tea Kettle"), ("teapot", "pot for tea"), 29),
    ItemType("bowl", ("Kitchen", "Tableware", "Bowls"), ("Bowl", "Serving Dish"), ("bowl", "salad bowl"), 15),
    ItemType("plate", ("Kitchen", "Tableware", "Plates"), ("Plate", "Dinner Plate"), ("plate", "dish"), 11),
    ItemType(
        "armchair", ("Furniture", "Seating", "Armchairs"), ("Armchair", "Lounge Chair"), ("armchair", "easy chair"), 249
    ),
    ItemType("sofa", ("Furniture", "Seating", "Sofas"), ("Sofa", "Loveseat", "Settee"), ("sofa", "couch"), 599),
    ItemType("lamp", ("Furniture", "Lighting", "Table Lamps"), ("Table Lamp", "Light"), ("lamp", "bedside light"), 45),
    ItemType("cushion", ("Furniture", "Textiles", "Cushions"), ("Cushion", "Throw Pillow"), ("cushion", "pillow"), 17),
    ItemType("kite", ("Toys", "Outdoor Play", "Kites"), ("Kite", "Diamond Kite"), ("kite", "flying toy"), 15),
    ItemType("ball", ("Toys", "Outdoor Play", "Balls"), ("Ball", "Play Ball"), ("ball", "beach ball"), 9),
)

# Attribute value → wordings, the plain one first.
COLOURS = {
    "red": ("red", "crimson", "scarlet"),
    "orange": ("orange", "tangerine"),
    "yellow": ("yellow", "lemon"),
    "green": ("green", "emerald", "olive"),
    "blue": ("blue", "navy", "azure"),
    "purple": ("purple", "violet"),
    "pink": ("pink", "rose"),
    "brown": ("brown", "chocolate"),
    "black": ("black", "jet"),
    "white": ("white", "ivory"),
}
PATTERNS = {
    "plain": ("plain", "solid"),
    "striped": ("striped", "stripe"),
    "dotted": ("dotted", "polka dot", "spotted"),
    "checked": ("checked", "plaid", "gingham"),
}
STYLES = {
    "casual": ("casual", "everyday"),
    "formal": ("formal", "elegant"),
    "vintage": ("vintage", "retro"),
    "sporty": ("sporty", "active"),
    "kids": ("kids", "children's"),
    "handmade": ("handmade", "artisan"),
}
BRANDS = (
    "Norvell", "Bramwick", "Kestrel Row", "Fenmoor", "Aldery", "Solvane",
    "Pinehart", "Quillon", "Tavish", "Lumeno", "Orrinde", "Halloway Lane",
)  # fmt: skip
MARKETS = ("DE", "FR", "UK", "US")
EXTRAS = ("", "", "", "Classic Fit", "New Season", "Gift Boxed", "Limited Edition", "Large", "Compact", "Set of 2")
