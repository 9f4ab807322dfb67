"""How units are cut into blocks, and what a worker tells the ledger when."""

import pyarrow as pa
import pytest

from data_jobs.runs.engine import Host, Telling, _require_gpus, blocks
from data_jobs.runs.errors import RunError
from data_jobs.runs.ledger import Ledger
from data_jobs.runs.outcome import Failure

BUG = Failure("bug", "ZeroDivisionError", "division by zero", "")


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger(str(tmp_path / "ledger.sqlite"))
    ledger.register([("a", "v", 5), ("b", "v", 5)])
    yield ledger
    ledger.close()


class Messages:
    """A ledger in this process that counts the messages an actor would get; `tell` arrives at once."""

    def __init__(self, ledger):
        self.ledger, self.sent = ledger, []

    def start_after(self, *args):
        self.sent.append("start_after")
        return self.ledger.start_after(*args)

    def tell(self, method, *args):
        self.sent.append(method)
        getattr(self.ledger, method)(*args)


@pytest.mark.parametrize(
    ("gpus", "workers", "each"), [(0, 4, 0), (1, 4, 0.25), (1, 3, 0.3333), (2, 2, 1), (8, 3, 2), (3, 2, 1)]
)
def test_a_worker_gets_a_share_of_one_gpu_or_whole_ones(gpus, workers, each):
    host = Host(None, None, (), None, 0, (), workers, gpus)
    assert host.gpus_each(workers) == each
    assert each * workers <= gpus


def test_more_gpus_than_there_are_is_told_at_once(tmp_path):
    _require_gpus(1, 1)
    with pytest.raises(RunError, match=r"num_gpus: 2 and this Ray cluster has 1; lower it"):
        _require_gpus(2, 1)


def test_two_stages_take_two_messages_and_one_at_the_end_of_the_block(ledger):
    messages = Messages(ledger)
    told = Telling(messages)
    told.start("1", "a", "hands", 1, "w")
    told.finish("1", "a", None, "Writing")
    told.start("2", "a", "publish", 1, "w")
    told.finish("2", "a", None, "Done")
    assert messages.sent == ["start_after", "start_after"]
    told.flush()
    assert messages.sent[2:] == ["finish"]
    assert ledger.counts() == {"Pending": (1, 5), "Done": (1, 5)}
    assert {stage: found[:2] for stage, found in ledger.stage_seconds(1).items()} == {
        "hands": (1, 0),
        "publish": (1, 0),
    }


def test_a_failure_is_told_at_once_and_in_order(ledger):
    messages = Messages(ledger)
    told = Telling(messages)
    told.start("1", "a", "hands", 1, "w")
    told.finish("1", "a", None, "Done")
    told.start("2", "b", "hands", 1, "w")
    told.finish("2", "b", BUG, "Failed")
    assert ledger.counts() == {"Done": (1, 5), "Failed": (1, 5)}
    assert told.start("3", "b", "hands", 1, "w").charged == 1


def test_a_message_that_is_repeated_changes_nothing(ledger):
    """The actor died after the work and before the answer: Ray sends the call again."""
    ledger.start("1", "a", "hands", 1, "w")
    finished = [("1", "a", BUG, "Failed")]
    once = ledger.start_after(finished, "2", "a", "hands", 1, "w")
    assert ledger.start_after(finished, "2", "a", "hands", 1, "w") == once
    assert (once.charged, once.interrupted) == (1, 0)


def test_a_message_that_fails_leaves_no_half_of_itself(ledger):
    ledger.start("1", "a", "hands", 1, "w")
    with pytest.raises(TypeError):
        ledger.start_after([("1", "a", None, "Done")], "not all arguments")
    assert ledger.counts()["Running"] == (1, 5)
    assert ledger.start_after([("1", "a", None, "Done")], "2", "b", "hands", 1, "w").charged == 0


@pytest.mark.parametrize(("clips", "workers"), [(0, 2), (1, 2), (7, 2), (3000, 2), (3000, 16)])
def test_blocks_hold_every_row_once_in_order(clips, workers):
    table = pa.table(
        {
            "clip_id": [f"{i:05d}" for i in range(clips)],
            "path": pa.array([f"/videos/{i // 10}.mp4" for i in range(clips)], pa.string()).dictionary_encode(),
        }
    )
    cut = blocks(table, workers)
    assert [row for block in cut for row in block.to_pylist()] == table.to_pylist()
    assert all(len(block) for block in cut)


def test_a_block_carries_only_the_strings_that_occur_in_it():
    paths = [f"/videos/{'x' * 200}/{i // 10}.mp4" for i in range(100_000)]
    table = pa.table({"clip_id": [str(i) for i in range(100_000)], "path": pa.array(paths).dictionary_encode()})
    cut = blocks(table, workers=2)
    assert max(len(block["path"].chunk(0).dictionary) for block in cut) <= 8
    assert sum(block.nbytes for block in cut) < 3 * table.nbytes
