"""Events: they are the same on both sides of a pipe, and anything else is refused."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest

from stability.study.events import (
    Ended,
    Epoch,
    Event,
    Probe,
    Progress,
    Resumed,
    Started,
    from_json,
    replay,
)

RECORD = {"id": "a", "status": "completed", "cell": {"epochs": 2}, "result": {"curve": [{"epoch": 1}, {"epoch": 2}]}}
EVENTS = [
    Started("a", 1),
    Resumed("a", 2, 20),
    Progress("a", 3, 40),
    Epoch("a", 8, {"epoch": 1, "loss": 0.5, "ema_loss": None}),
    Probe("a", 3, {"curvature": 0.1}),
    Ended("a", RECORD),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.kind)
def test_an_event_survives_json(event: Event) -> None:
    assert from_json(json.loads(json.dumps(event.to_json()))) == event


def test_scalars_of_numpy_become_numbers() -> None:
    import numpy as np

    event = Epoch("a", 2, {"epoch": 1, "loss": np.float32(0.5)})
    assert json.loads(json.dumps(event.to_json()))["row"] == {"epoch": 1, "loss": 0.5}


def test_who_receives_an_event_imports_no_library_for_it() -> None:
    import numpy as np
    from torch.torch_version import TorchVersion

    record = {**RECORD, "versions": {"torch": TorchVersion("2.14.1")}}
    row = {"epoch": 1, "loss": np.float64(0.5)}
    sent = pickle.dumps([Epoch("a", 2, row).to_json(), Ended("a", record).to_json()])
    assert not any(word in sent for word in (b"torch_version", b"numpy"))
    assert pickle.loads(sent)[1]["record"]["versions"] == {"torch": "2.14.1"}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"kind": "epoch", "id": "a", "epochs": 2, "row": {}}, r"row\['epoch'\]=None; accepted: a whole number"),
        ({"kind": "epoch", "id": "a", "epochs": 2, "row": None}, "row=None; accepted: a mapping"),
        ({"kind": "progress", "id": "a", "step": 1.5, "steps": 2}, "step=1.5; accepted: a whole number"),
        ({"kind": "progress", "id": "a", "step": True, "steps": 2}, "step=True"),
        ({"kind": "progress", "id": 7, "step": 1, "steps": 2}, "id=7; accepted: text"),
        ({"kind": "progress", "id": "a", "step": 1}, "accepted: id, step, steps"),
        ({"kind": "started", "id": "a", "attempt": 1, "more": 2}, "accepted: id, attempt"),
        ({"kind": "ended", "id": "b", "record": RECORD}, "with the record of 'a'"),
        ({"kind": "ended", "id": "a", "record": {"id": "a"}}, "status"),
        ({"kind": "begun", "id": "a"}, "unknown kind of event 'begun'; accepted: started, resumed"),
        ({}, "unknown kind of event None"),
    ],
)
def test_what_is_no_event_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        from_json(values)


def test_a_record_tells_its_trial_again() -> None:
    told = list(replay(RECORD))
    assert told == [Started("a", 1), Epoch("a", 2, {"epoch": 1}), Epoch("a", 2, {"epoch": 2}), Ended("a", RECORD)]
