"""Document selections."""

import pytest

from local_vespa.documents.selection import SelectionError, parse_selection

ID = "id:shop:product:n=7:a b"
FIELDS = {"stock": 7, "title": "Red hoodie", "tags": {"yoga": 3}, "category": ["Men", "Tops"], "price": 2.5}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("true", True),
        ("FALSE", False),
        ("product", True),
        ("visitor", False),
        ("not visitor", True),
        ("product.stock == 7", True),
        ("product.stock != 7", False),
        ("product.stock > 45", False),
        ("product.stock >= 7 and product.price < 2.6", True),
        ("product.stock == 1 OR product.stock == 7", True),
        ('product.title = "*hood*"', True),
        ('product.title == "*hood*"', False),
        ('product.title =~ "^Red"', True),
        ("product.title = 'Red hoodie'", True),
        ('product.category = "Tops"', True),
        ('product.category = "Hats"', False),
        ("product.tags{yoga} >= 3", True),
        ("product.tags{sale} == null", True),
        ('product.category[1] = "Tops"', True),
        ("product.missing == null", True),
        ("product.missing != 3", True),
        ("product.missing > 4", False),
        ("not (product.missing > 4)", False),
        ("product.missing > 4 or true", True),
        ("visitor.stock == 7", False),
        ("not (visitor.stock == 7)", False),
        ('id.specific = "a b"', True),
        ("id.user == 7", True),
        ('id.namespace = "shop"', True),
        ('id.type = "product"', True),
        ('id = "id:shop:*"', True),
        ('id.group = "x"', False),
        ("(product.stock + 1) * 2 == 16", True),
        ("product.stock % 2 == 1", True),
        ("product.stock < now() - 60", True),
        ('product.title.lowercase() == "red hoodie"', True),
        ("product.stock / 0 == 1", False),
        (f"product.stock < {'9' * 400} / 3", False),
        ("product.title > 3", False),
    ],
)
def test_matches(text, expected):
    assert parse_selection(text).matches(ID, FIELDS) is expected


@pytest.mark.parametrize(
    "text", ["", "product.stock >", "and true", 'product.stock = "x', "true false", "id.hash() > 3", "x" * 20000]
)
def test_what_cannot_be_parsed_is_refused(text):
    with pytest.raises(SelectionError):
        parse_selection(text)
