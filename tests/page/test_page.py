"""The search page as a shopper and as a screen reader meet it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlparse

import httpx
import pytest

from tests.page.conftest import Shop, serving


@pytest.fixture
def page(browser: Any, shop: Shop) -> Iterator[Any]:
    """A page that fails the test for an error in its script, or a request that its security policy blocked."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(20_000)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda m: errors.append(m.text) if "Content Security Policy" in m.text else None)
    yield page
    context.close()
    assert not errors


def go(page: Any, shop: Shop, address: str = "") -> None:
    page.goto(shop.url + address)
    page.wait_for_selector("#profile option", state="attached")


def hits(page: Any, column: str = "#a") -> list[str]:
    page.wait_for_selector("#columns[aria-busy=false]")
    return page.eval_on_selector_all(f"{column} .card", "cards => cards.map(card => card.dataset.item)")


def query(page: Any) -> dict[str, list[str]]:
    return parse_qs(urlparse(page.url).query)


def settled(page: Any, action: Any) -> list[str]:
    """The hits after an action that searches."""
    with page.expect_response(lambda r: "/v1/search" in r.url or "/v1/similar" in r.url):
        action()
    return hits(page)


def test_the_empty_page_explains_itself_with_searches_that_find_something(page, shop):
    go(page, shop)
    assert page.locator("#empty h2").is_visible()
    examples = page.locator(".examples button")
    examples.first.wait_for()
    assert not page.locator("#facets").is_visible()
    assert settled(page, examples.first.click)
    assert not page.locator("#empty").is_visible() and page.locator("#facets").is_visible()
    go(page, shop, "?stock=1")
    assert page.locator("#empty h2").is_visible() and page.locator("#chips button").count() == 1


def test_a_user_is_chosen_by_what_he_searched_for(page, shop):
    go(page, shop)
    texts = page.locator("#user option").all_inner_texts()
    assert any(re.fullmatch(rf"{shop.users[0]}: \w.*", text) for text in texts)
    page.select_option("#user", shop.users[0])
    page.wait_for_selector("#history:not([hidden]) .strip button")
    assert page.inner_text("#history-title") == f"{shop.users[0]} clicked"


def test_typing_searches_and_suggests_and_the_keyboard_chooses(page, shop):
    go(page, shop)
    page.locator("#q").press_sequentially("dre", delay=30)
    page.wait_for_selector("#suggestions li")
    assert page.get_attribute("#q", "aria-expanded") == "true" and hits(page)
    page.keyboard.press("ArrowDown")
    chosen = page.get_attribute("#q", "aria-activedescendant")
    text = page.inner_text(f"#{chosen}")
    page.keyboard.press("Enter")
    page.wait_for_function("text => document.querySelector('#q').value === text", arg=text)
    assert query(page)["q"] == [text] and not page.locator("#suggestions").is_visible()
    page.locator("#q").press("Escape")


def test_the_address_holds_the_whole_state(page, shop):
    go(page, shop)
    page.fill("#q", "dress")
    settled(page, lambda: page.keyboard.press("Enter"))
    settled(page, lambda: page.select_option("#user", shop.users[0]))
    box = page.locator("#facets fieldset", has_text="Brand").locator("input").first
    settled(page, box.check)
    settled(page, lambda: page.select_option("#sort", "-price"))
    shown, address = hits(page), page.url
    assert {"q", "user", "f", "sort"} <= query(page).keys() and shown
    page.reload()
    page.wait_for_selector("#a .card")
    assert hits(page) == shown and page.url == address
    page.go_back()
    page.wait_for_function("() => !location.search.includes('sort')")
    page.wait_for_selector("#columns[aria-busy=false]")
    assert "sort" not in query(page) and page.input_value("#sort") == ""
    assert page.locator("#facets fieldset", has_text="Brand").locator("input:checked").count() == 1


def test_facets_count_what_they_would_leave(page, shop):
    go(page, shop, "?q=dress")
    first = page.locator("#facets fieldset", has_text="Colour").locator("li").first
    first.wait_for()
    count = int(first.locator(".count").inner_text())
    shown = settled(page, first.locator("input").check)
    assert 0 < len(shown) <= count or count > 24
    cheap = settled(page, lambda: (page.fill("#f-max", "40"), page.locator("#f-max").blur()))
    prices = [float(text) for text in page.locator("#a .facts strong").all_inner_texts()]
    assert len(prices) == len(cheap) and all(price <= 40 for price in prices)
    assert page.locator("#chips button").count() == 2
    settled(page, page.locator("#chips button").first.click)
    assert page.locator("#chips button").count() == 1


def test_a_click_is_recorded_and_moves_the_order(page, shop):
    user = shop.users[1]
    go(page, shop, f"?q=dress&user={user}")
    before = hits(page)
    with (
        page.expect_response(lambda r: "/v1/events" in r.url) as event,
        page.expect_response(lambda r: "/v1/search" in r.url),
    ):
        page.locator("#a .card .title").nth(5).click()
    assert event.value.json()["recorded"]
    sent = event.value.request.post_data_json
    assert sent["user"] == user and sent["item"] == before[5] and sent["query"] == "dress" and sent["search_id"]
    page.wait_for_selector("dialog[open]")
    page.keyboard.press("Escape")
    assert page.locator(".card .move").count() == len(hits(page))
    with httpx.Client(trust_env=False) as client:
        events = client.get(f"{shop.url}v1/users/{user}").json()["events"]
    assert before[5] in {event["item"] for event in events}


def test_an_anonymous_session_counts_and_stays_apart(page, shop, browser):
    go(page, shop, "?q=shoes")
    alone = hits(page)
    with (
        page.expect_response(lambda r: "/v1/events" in r.url) as event,
        page.expect_response(lambda r: "/v1/search" in r.url),
    ):
        page.locator("#a .card .title").nth(3).click()
    assert "session" in event.value.request.post_data_json and "user" not in event.value.request.post_data_json
    other = browser.new_context()
    stranger = other.new_page()
    go(stranger, shop, "?q=shoes")
    assert hits(stranger) == alone
    other.close()


def test_two_users_side_by_side_with_moves(page, shop):
    go(page, shop, f"?q=dress&vs=1&userb={shop.users[0]}")
    page.wait_for_selector("#b .card")
    a, b = hits(page), hits(page, "#b")
    for item, mark in zip(b, page.locator("#b .card .move").all_inner_texts(), strict=True):
        moved = a.index(item) - b.index(item) if item in a else None
        first = mark.split()[0]
        assert first == ("new" if moved is None else "=" if moved == 0 else "▲" if moved > 0 else "▼")


def test_two_models_side_by_side_say_what_one_of_them_lacks(page, shop):
    go(page, shop, "?q=dress&vs=1")
    page.wait_for_selector("#b .card")
    assert hits(page) == hits(page, "#b")
    page.select_option("#model-b", "half")
    page.wait_for_function("() => document.querySelector('#b .said').textContent.includes('It lacks')")
    a, b = hits(page), hits(page, "#b")
    both = len(set(a) & set(b))
    assert a != b and query(page)["modelb"] == ["half"]
    assert page.inner_text("#status").startswith(f"{both} of {len(a)} items")
    assert page.locator("#b .card .move").count() == len(b)
    with httpx.Client(trust_env=False) as client:
        found = client.get(f"{shop.url}v1/models", params={"item": a}).json()
    lacks = next(model["lacks"] for model in found if model["name"] == "half")
    assert f"It lacks {len(lacks)} of the items on the left" in page.inner_text("#b .said")
    assert "lacks" not in page.inner_text("#a .said") and "main (mrse-" in page.inner_text("#a .said")
    address = page.url
    page.reload()
    page.wait_for_selector("#b .card")
    assert page.url == address and hits(page, "#b") == b and page.input_value("#model-b") == "half"
    item = page.locator("#b .card").first.get_attribute("data-item")
    with page.expect_request(lambda r: "/v1/explain" in r.url) as asked:
        page.locator("#b .card").first.get_by_role("button", name=re.compile("^Why")).click()
    assert asked.value.post_data_json["model"] == "half" and asked.value.post_data_json["item"] == item
    page.wait_for_selector("dialog table")
    page.keyboard.press("Escape")
    settled(page, page.locator("#b .card").first.get_by_role("button", name=re.compile("^Similar")).click)
    assert {"similar", "modelb", "vs"} <= query(page).keys() and hits(page, "#a") and hits(page, "#b")


def test_a_model_that_is_down_says_so_while_the_other_goes_on(page, shop):
    go(page, shop, "?q=dress&vs=1&model=gone")
    problem = page.locator("#a .problem")
    problem.wait_for()
    assert "not available" in problem.inner_text() and "nothing answers" in problem.inner_text()
    shown = hits(page, "#b")
    assert shown and not hits(page) and page.inner_text("#status") == "The left side has no answer."
    assert page.locator("#facets fieldset", has_text="Brand").count() == 1
    settled(page, lambda: page.select_option("#model", "main"))
    assert hits(page) == shown and not problem.is_visible()


def test_why_names_queues_with_ranks_and_shares(page, shop):
    go(page, shop, f"?q=dress&user={shop.users[0]}&rank=three_queues")
    assert re.match(r"Found by .*#\d", page.locator("#a .found").first.inner_text())
    page.locator("#a .card", has_text="Why?").first.get_by_role("button", name=re.compile("^Why")).click()
    page.wait_for_selector("dialog table")
    assert page.locator("dialog tr").count() >= 7 and "Found by" in page.inner_text("dialog")


def test_similar_items_leave_out_the_item_itself(page, shop):
    go(page, shop, "?q=dress")
    item = hits(page)[0]
    shown = settled(page, page.locator("#a .card").first.get_by_role("button", name=re.compile("^Similar")).click)
    assert shown and item not in shown and query(page)["similar"] == [item]
    following = settled(page, page.locator("#paging").get_by_role("button", name="Next").click)
    assert following and not set(following) & {item, *shown}
    cheap = settled(page, lambda: (page.fill("#f-max", "40"), page.locator("#f-max").blur()))
    prices = [float(text) for text in page.locator("#a .facts strong").all_inner_texts()]
    assert len(prices) == len(cheap) > 0 and all(price <= 40 for price in prices)


def test_further_pages_continue_the_search(page, shop):
    answers: list[tuple[Any, Any]] = []
    page.on("response", lambda r: "/v1/search" in r.url and answers.append((r.request.post_data_json, r.json())))
    go(page, shop, "?q=dress")
    first = hits(page)
    following = settled(page, page.locator("#paging").get_by_role("button", name="Next").click)
    settled(page, lambda: page.select_option("#sort", "-price"))
    (asked, answer), (more, continued), (other, _) = answers
    assert following and not set(first) & set(following) and "search_id" not in {**asked, **other}
    assert more["search_id"] == continued["search_id"] == answer["search_id"]


def test_counts_are_honest(page, shop):
    go(page, shop, "?q=dress")
    hits(page)
    assert "candidates that recall found" in page.inner_text("#status")
    settled(page, lambda: page.select_option("#profile", "bm25"))
    assert "matching items" in page.inner_text("#status")


def test_a_line_says_where_nothing_fits_well_any_more(page, shop):
    """closeness = 1 / (2 − cosine): the third hit's cosine is 0.5 below the best one's."""
    cosines = [0.8, 0.7, 0.3]
    hit = {"category": [], "fields": {}, "features": {}, "queues": {}}
    rows = [hit | {"item": str(i), "title": f"item {i}", "score": 1 / (2 - c)} for i, c in enumerate(cosines)]
    answer = {"search_id": "x" * 8, "query": "q", "profile": "ann", "hits": rows, "total": 3, "offset": 0, "clicks": 0}
    answer |= {"facets": {}, "coverage": 0.5, "fallbacks": [], "seconds": 0.01, "stages": {}}
    go(page, shop)
    page.route("**/v1/search", lambda route: route.fulfill(json=answer))
    page.select_option("#profile", "ann")  # which one is the default, training decides
    page.fill("#q", "anything")
    page.keyboard.press("Enter")
    page.wait_for_selector(".line")
    order = page.eval_on_selector_all("#a li", "rows => rows.map(row => row.className)")
    assert order == ["card", "card", "line", "card"]
    assert "50 % of the catalogue" in page.inner_text("#status")


def test_a_late_answer_never_wins(page, shop):
    """The first of two searches is held back until the second has been shown."""
    go(page, shop)
    held = []

    def hold(route):
        if '"query":"dress"' in route.request.post_data:
            held.append(route)
        else:
            route.continue_()

    page.route("**/v1/search", hold)
    page.fill("#q", "dress")
    page.keyboard.press("Enter")
    page.wait_for_timeout(50)
    page.fill("#q", "shoes")
    shown = settled(page, lambda: page.keyboard.press("Enter"))
    for route in held:
        route.continue_()
    page.wait_for_timeout(300)
    assert held and hits(page) == shown and page.input_value("#q") == "shoes"


def test_an_error_says_what_to_do_and_try_again_works(page, shop):
    body = '{"error": {"kind": "unavailable", "message": "nothing answers", "fix": "Start it", "request_id": "x"}}'
    go(page, shop)
    page.route("**/v1/search", lambda route: route.fulfill(status=503, body=body, content_type="application/json"))
    page.fill("#q", "dress")
    page.keyboard.press("Enter")
    problem = page.locator("#a .problem")
    problem.wait_for()
    assert "nothing answers" in problem.inner_text() and "Start it" in problem.inner_text()
    page.unroute("**/v1/search")
    assert settled(page, problem.get_by_role("button", name="Try again").click) and not problem.is_visible()


def test_a_key_in_the_address_opens_a_service_with_keys(page, shop, tmp_path):
    settings, key = tmp_path / "serve.toml", "a-key-of-16-or-more"
    settings.write_text(f'[[serve.keys]]\nname = "staff"\nkey = "{key}"\n')
    with serving(tmp_path, "--settings", settings, "--app", shop.app, "--endpoint", shop.endpoint) as url:
        page.goto(url + "?q=dress")
        page.locator("#a .problem").wait_for()
        assert "an API key is needed" in page.locator("#a .problem").inner_text()
        page.goto("about:blank")
        page.goto(f"{url}?q=dress#key={key}")
        assert hits(page) and key not in page.url
        page.reload()
        assert hits(page), "the tab keeps it"


def test_no_text_of_anyone_is_read_as_html_and_long_words_break_nothing(page, shop):
    go(page, shop)
    page.set_viewport_size({"width": 360, "height": 740})
    for text in ("<img src=x onerror=alert(1)>", "x" * 300):
        page.fill("#q", text)
        page.keyboard.press("Enter")
        hits(page)
        assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
        assert page.locator("main img[src=x]").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_axe_finds_nothing(browser, shop, scheme, width):
    from axe_playwright_python.sync_playwright import Axe

    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme, bypass_csp=True)
    page = context.new_page()
    user = shop.users[0]
    two = (f"?q=dress&vs=1&userb={user}", "?q=dress&vs=1&model=gone&modelb=half")
    for address in ("", f"?q=dress&user={user}&rank=three_queues", *two):
        go(page, shop, address)
        page.wait_for_selector(".card" if address else ".examples li")
        found = Axe().run(page)
        assert found.violations_count == 0, f"{address}: {found.generate_report()}"
    page.locator(".card .title").first.click()
    page.wait_for_selector("dialog[open]")
    assert Axe().run(page).violations_count == 0
    context.close()


def test_all_by_keyboard(page, shop):
    """Tab reaches the search box, a filter, a hit's title; Enter opens it, Escape closes it."""
    go(page, shop, "?q=dress")
    hits(page)
    reached = []
    for _ in range(80):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("() => document.activeElement.id || document.activeElement.className"))
        if reached[-1] == "title":
            break
    assert {"q", "user", "profile", "compare", "title"} <= set(reached)
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog[open]")
    page.keyboard.press("Escape")
    assert not page.locator("dialog[open]").count()
