"""A hub that is out of reach costs no minute of retries, and leaves every setting as it was."""

import socket

import pytest
from huggingface_hub import constants
from memx import hub
from memx.errors import MemxError


@pytest.fixture(autouse=True)
def online(monkeypatch):
    """As if no environment variable had said that there is no hub."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


@pytest.mark.parametrize("there", [True, False])
def test_only_the_cache_is_asked_while_the_hub_is_out_of_reach(monkeypatch, there):
    monkeypatch.setattr(hub, "_reachable", lambda endpoint: there)
    with hub.quick_hub():
        assert constants.HF_HUB_OFFLINE is not there
    with pytest.raises(KeyError), hub.quick_hub():
        raise KeyError
    assert constants.HF_HUB_OFFLINE is False


def test_an_address_where_nobody_listens_is_out_of_reach():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        assert hub._reachable.__wrapped__(f"http://127.0.0.1:{free.getsockname()[1]}") is False


@pytest.mark.parametrize("endpoint", ["localhost", "huggingface.example/path", "", "http://a b", "http://h:port"])
def test_an_endpoint_that_is_no_web_address_is_refused(endpoint):
    with pytest.raises(MemxError, match="HF_ENDPOINT is not a web address") as caught:
        hub._reachable.__wrapped__(endpoint)
    assert "https://" in caught.value.hint
