"""What foreign clients can do here, each unchanged and in an environment of its own.

The first run makes the environments in `.venv-clients`, which takes about two
minutes; after that all of it takes seconds.
"""

from collections.abc import Mapping

import pytest

from tests.compat import table
from tests.compat.clients.cells import FEATURES, OK
from tests.compat.trial import CLIENTS, Client, Trial, possible, tried

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Trial]:
    return tried(tmp_path_factory.mktemp("compat"))


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: str(client.name))
def test_a_client_works_unchanged(trials: Mapping[str, Trial], client: Client) -> None:
    if client not in possible():
        pytest.skip("its packages are not for this Python or platform")
    outcomes = trials[client.name].outcomes
    assert not outcomes.keys() - FEATURES.keys()
    failures = [f"{name}\n{text}" for name, text in outcomes.items() if text != OK]
    assert not failures, "\n".join(failures)


def test_the_page_says_what_the_clients_did(trials: Mapping[str, Trial]) -> None:
    if len(possible()) < len(CLIENTS):
        pytest.skip("not all clients are for this Python and platform")
    assert table.shown() == table.written(trials), "run `python -m tests.compat`"
