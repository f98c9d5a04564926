"""Lays a fragment of a file over the file: what variants of a package, and a migration, are made with.

A fragment is written in the language of its file and holds only what differs. In a schema (`.sd`) or a rank profile
(`.profile`), `schema`, `document`, `rank-profile` and `inputs` are opened and compared inside; any other statement
takes the place of the one of that name (`field price`, `function similarity`, `first-phase`, `query(q)`), or is added
at the end of its block. In `services.xml`, `services`, `container`, `content` and `documents` of one id are opened; any
other element takes the place of the one with its tag and id (a document's: its type), or is added. Comments above a
statement go with it, and stay where its successor has none. Nothing can be taken away.
"""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

from local_vespa.package.sd import Statement
from mrse_model.errors import InputError
from vespa_package.schema import function_name, read_statements

OPENED = {"schema", "document", "rank-profile", "inputs"}
NAMED = {"field", "fieldset", "document-summary", "onnx-model", "rank-profile", "constant", "struct"}
OPENED_XML = {"services", "container", "content", "documents"}


def merge_statements(base: str, fragment: str, base_file: Path, fragment_file: Path) -> str:
    """The text of a .sd or .profile file with a fragment over it. Raises InputError where one of them cannot be read,
    or the fragment is of another schema or profile.
    """
    mine, theirs = read_statements(base, base_file), read_statements(fragment, fragment_file)
    if len(theirs) != 1 or len(mine) != 1 or mine[0].words[:2] != theirs[0].words[:2]:
        raise InputError(
            f"the fragment is of {theirs[0].header if theirs else 'nothing'}, and {base_file.name} of "
            f"{mine[0].header if mine else 'nothing'}",
            file=fragment_file,
            fix="Name the schema or the rank profile as in the file that it is laid over",
        )
    edits: list[tuple[int, int, str]] = []
    _merge(mine[0], theirs[0], base, fragment, edits)
    for start, end, text in sorted(edits, key=lambda edit: edit[0], reverse=True):
        base = base[:start] + text + base[end:]
    return base


def name_of(statement: Statement) -> str:
    """What a statement is known by in its block: its keyword, with a name where there are several of its kind."""
    if statement.keyword == "function":
        return f"function {function_name(statement)}"
    return " ".join(statement.words[:2]) if statement.keyword in NAMED else statement.keyword


def with_comments(text: str, statement: Statement) -> int:
    """Where the comment lines directly above a statement begin; the start of its line where there are none."""
    start = text.rfind("\n", 0, statement.start) + 1
    while start > 0:
        above = text.rfind("\n", 0, start - 1) + 1
        if not text[above:start].lstrip().startswith("#"):
            break
        start = above
    return start


def line_end(text: str, statement: Statement) -> int:
    """Where the line that a statement ends on ends, if only a comment follows on it; else where it ends."""
    rest = re.compile(r"[ \t]*(#[^\n]*)?(?=\n|$)").match(text, statement.end)
    return rest.end() if rest else statement.end


def _merge(mine: Statement, theirs: Statement, base: str, fragment: str, edits: list[tuple[int, int, str]]) -> None:
    """Collects (start, end, text) of what changes in the base's file."""
    known = {name_of(child): child for child in mine.children}
    added = ""
    for child in theirs.children:
        before = known.get(name_of(child))
        block = fragment[with_comments(fragment, child) : line_end(fragment, child)]
        if before is None:
            added += block + "\n"
        elif child.keyword in OPENED and child.body is not None and before.body is not None:
            _merge(before, child, base, fragment, edits)
        else:
            commented = block.lstrip().startswith("#")
            start = with_comments(base, before) if commented else base.rfind("\n", 0, before.start) + 1
            if base[start : before.start].strip() and not commented:  # not alone on its line
                start, block = before.start, block.strip()
            edits.append((start, line_end(base, before), block))
    if added:
        closing = mine.end - 1  # of the }
        line = base.rfind("\n", 0, closing) + 1
        alone = not base[line:closing].strip()
        edits.append((line, line, added) if alone else (closing, closing, "\n" + added))


def merge_services(base: Path, fragment: Path) -> str:
    """services.xml with a fragment over it. Raises InputError for a file that is no XML, and for a container or a
    content cluster that is not in the base.
    """
    mine, theirs = read_xml(base), read_xml(fragment)
    _merge_elements(mine, theirs, fragment)
    ElementTree.indent(mine)
    return ElementTree.tostring(mine, encoding="unicode", xml_declaration=True) + "\n"


def read_xml(file: Path) -> ElementTree.Element:
    """The root of an XML file with its comments. Raises InputError if it is missing or not XML."""
    try:
        return ElementTree.parse(
            file, ElementTree.XMLParser(target=ElementTree.TreeBuilder(insert_comments=True))
        ).getroot()
    except FileNotFoundError:
        fix = "Name the folder of an application package, or run: mrse init, which writes one"
        raise InputError("the file is missing", file=file, fix=fix) from None
    except ElementTree.ParseError as error:
        raise InputError(f"not XML: {error}", file=file, fix="Correct it at that line and column") from None


def _merge_elements(mine: ElementTree.Element, theirs: ElementTree.Element, file: Path) -> None:
    known = {_identity(child): child for child in mine if isinstance(child.tag, str)}
    comments: list[ElementTree.Element] = []
    for child in theirs:
        if not isinstance(child.tag, str):
            comments.append(child)
            continue
        before = known.get(_identity(child))
        if before is not None and child.tag in OPENED_XML:
            _merge_elements(before, child, file)
        elif before is not None:
            mine[list(mine).index(before)] = child
        elif child.tag in OPENED_XML:
            raise InputError(
                f"services.xml of the package has no {child.tag} {child.get('id', '')}".rstrip(), file=file,
                fix=f"Take one of: {', '.join(e.get('id', '') for e in mine if e.tag == child.tag) or 'none there'}",
            )  # fmt: skip
        else:
            same = [at for at, element in enumerate(mine) if element.tag == child.tag]
            at = same[-1] + 1 if same else len(mine)
            for element in [*comments, child]:
                mine.insert(at, element)
                at += 1
        comments = []


def _identity(element: ElementTree.Element) -> tuple[str, str | None]:
    return str(element.tag), element.get("id") or element.get("type")
