"""What the hub does not do yet: each test states an answer that a caller should get. Not collected by default.

Run it by name: python -m pytest tests/app/pending_answers.py. A test that passes belongs into a test_app_*.py.
"""

import pytest

pytestmark = [pytest.mark.xdist_group("app-pending"), pytest.mark.usefixtures("demo")]

ACCOUNTS = "/api/crm/accounts"


def test_a_bad_api_version_is_told_once(api, problem):
    """Now: "settings.api_version: api_version: expected a version such as v9.2."."""
    answer = api("PATCH", "/api/integrations/demo", {"settings": {"api_version": "latest"}})
    detail = "settings.api_version: expected a version such as v9.2."
    problem(answer, 400, "BadRequest", detail, "settings.api_version")


def test_a_cron_that_never_comes_is_told_so(api):
    """Now it is told that it lacks fields, though it has all six."""
    answer = api("PATCH", "/api/integrations/demo", {"schedule": {"cron": "0 0 0 30 2 *"}})
    assert "five or six fields" not in answer.json()["detail"]


def test_a_wrong_shape_is_named_in_the_words_of_json(api, faults):
    """Now: "The answer is no object but a int." (or "a NoneType")."""
    for text in ("5", "null"):
        faults("garbage", text=text, path="*/accounts*")
        detail = api("GET", f"{ACCOUNTS}?top=1").json()["detail"]
        assert "a int" not in detail
        assert "NoneType" not in detail


def test_a_connection_tells_which_of_its_secrets_are_set(connect):
    """Now it lists every secret that the connector knows, set or not."""
    assert connect("told")["secrets"] == ["client_secret"]
