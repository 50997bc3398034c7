"""XML read like JSON: what comes once and several times, attributes, text beside parts, and what is not taken."""

import pytest

from crm_core.model.xml_text import MAX_DEPTH, is_xml, parse_xml


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("<a><b>1</b><c/></a>", {"b": "1", "c": None}),
        ("<a><b>1</b><b>2</b><b>3</b></a>", {"b": ["1", "2", "3"]}),
        ("<a><b><c>1</c></b><b><c>2</c></b></a>", {"b": [{"c": "1"}, {"c": "2"}]}),
        ('<a x="1"><b y="2"> t </b></a>', {"@x": "1", "b": {"@y": "2", "#text": "t"}}),
        ('<n:a xmlns:n="urn:x"><n:b>1</n:b></n:a>', {"b": "1"}),
        ("<a> text </a>", {"#text": "text"}),
        ("<a/>", {}),
        ("<a><b>&amp;&#241;</b><!-- c --></a>", {"b": "&\u00f1"}),
        ("<a>" * MAX_DEPTH + "</a>" * MAX_DEPTH, None),
    ],
)
def test_what_is_read(text, found):
    assert found is None or parse_xml(text.encode()) == found
    parse_xml(text.encode())


@pytest.mark.parametrize("text", ["", "x", "<a>", "<a></b>", "<!DOCTYPE a><a/>", "<a>" * 60 + "</a>" * 60])
def test_what_is_not_taken(text):
    with pytest.raises(ValueError, match="XML"):
        parse_xml(text.encode())


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [("text/xml; charset=utf-8", True), ("Application/XML", True), ("application/soap+xml", True),
     ("application/json", False), ("text/xmlx", False), ("", False)],
)  # fmt: skip
def test_which_types_are_xml(kind, wanted):
    assert is_xml(kind) is wanted
