"""`make demo-crash`, smaller: a hub that links two systems is killed again and again; and its ledger sees what is wrong."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from soak.ledger import HUB, Ledger, account_of

ROOT = Path(__file__).resolve().parents[2]
KILLS = 4


def crash(*arguments):
    command = [sys.executable, "-m", "soak.crash", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=420, check=False)


@pytest.mark.soak
def test_what_was_accepted_is_everywhere_once_though_the_hub_is_killed():
    done = crash("--contacts", "12", "--kills", str(KILLS), "--seed", "2")
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    kills = re.findall(
        r"^kill (\d+): after \d+\.\d\d s; of [\d,]+ contacts that were accepted [\d,]+ were",
        said,
        re.MULTILINE,
    )
    assert kills == [str(number) for number in range(1, KILLS + 1)]
    accepted = KILLS * (12 + 2)
    assert f"\naccepted: {accepted} contacts and " in said
    places = ", ".join(f"{accepted} at {place}" for place in ("the hub", "system-a", "system-b"))
    assert f"once, with every value: {places}\n" in said
    assert "\ntwice:    0\nlost:     0\ngood, after " in said


def test_wrong_numbers_are_refused():
    done = crash("--kills", "0")
    assert done.returncode == 2
    assert "--kills: expected 1 to 1000" in done.stderr


# --- the ledger: it has to see each kind of fault --------------------------------------------------------------------


@pytest.fixture
def ledger():
    ledger = Ledger()
    ledger.made("a@example.com", phone="1")
    ledger.edited("a@example.com", "job_title", "Buyer")
    return ledger


STORED = {"email": "a@example.com", "phone": "1", "job_title": "Buyer"}
ROW = {"emailaddress1": "a@example.com", "telephone1": "1", "jobtitle": "Buyer"}


def test_what_is_well_is_well(ledger):
    account = account_of(ledger, {HUB: [STORED], "system": [ROW]})
    assert account.good
    assert (account.accepted, account.edits) == (1, 1)
    assert account.applied == {HUB: 1, "system": 1}
    assert list(account.lines())[-2:] == ["twice:    0", "lost:     0"]


@pytest.mark.parametrize(
    ("stored", "rows", "lost", "twice"),
    [
        ([], [ROW], 1, 0),
        ([STORED], [], 1, 0),
        ([STORED], [{**ROW, "jobtitle": None}], 1, 0),
        ([STORED], [{**ROW, "telephone1": "2"}], 1, 0),
        ([STORED], [ROW, ROW], 0, 1),
        ([STORED, STORED], [ROW], 0, 1),
        ([STORED], [ROW, {**ROW, "emailaddress1": "b@example.com"}], 0, 1),
    ],
)
def test_a_contact_or_an_edit_that_is_lost_or_there_twice_is_seen(ledger, stored, rows, lost, twice):
    account = account_of(ledger, {HUB: stored, "system": rows})
    assert not account.good
    assert (len(account.lost), len(account.twice)) == (lost, twice)
