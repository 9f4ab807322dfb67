"""The fault matrix of docs/robot.md, measured again: every fault on the simulated arm, in real time.

    python -m tests.robot.fault_matrix [--write docs/robot.md]

Prints one row per fault: what the loop said, how long after the fault the arm held, what came then. Exit code 1 when
one did not hold within 100 ms or repeated an action. The runs are those of test_faults.py and test_client.py.
"""

import logging
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from robot import faults
from robot.contract import load_contract
from robot.rate import MonotonicClock
from robot.records import LoopState
from tests.robot.test_client import HalfOpen, Server, kill, run_against
from tests.robot.test_faults import HOLD_WITHIN_S, run_with

WHAT = {
    "camera_freeze": "no new frames",
    "camera_repeat": "the same picture with new stamps (a real camera's noise makes that impossible)",
    "black_frame": "a covered lens",
    "dropped_packet": "one answer of the servos lost",
    "bus_error": "the bus is dead; the servos keep their last goal",
    "nan_joint": "an encoder reads NaN",
    "policy_exception": "the policy raises",
    "policy_nan": "the policy answers NaN",
    "policy_stall": "the policy takes 500 ms",
    "clock_jump": "the clock leaps an hour ahead",
    "clock_back": "the clock leaps an hour back",
    "server_killed": "the policy's server dies",
    "half_open_socket": "the cable to the server is pulled",
}
BEGIN, END = "<!-- fault matrix: python -m tests.robot.fault_matrix --write docs/robot.md -->", "<!-- end -->"


def run(fault, contract):
    """Records, their times, and when the fault came."""
    if fault in faults.EXPECTED_REASON:
        return run_with(contract, fault, MonotonicClock())
    server = Server(contract.model_copy(update={"rate_hz": 30.0}))
    if fault == "server_killed":
        return run_against(server.url, contract, lambda: kill(server))
    relay = HalfOpen(server.port)
    return run_against(f"ws://127.0.0.1:{relay.port}", contract, relay.swallow.set)


def row(fault, contract):
    """Cells of the table, and whether the fault was survived."""
    records, times, at_ns = run(fault, contract)
    after = [(r, t) for r, t in zip(records, times, strict=True) if t >= at_ns]
    held = next(((r, t) for r, t in after if r.command.state is LoopState.HOLD), None)
    ticks = [r.decision.tick for r in records if r.decision is not None]
    fine = held is not None and (held[1] - at_ns) / 1e9 <= HOLD_WITHIN_S and len(ticks) == len(set(ticks))
    reasons = " → ".join(dict.fromkeys(r.command.reason for r, _ in after if r.command.reason))
    then = "goes on by itself" if records[-1].command.state is LoopState.MOVE else "holds as long as it lasts"
    if fault == "policy_stall":
        then = "goes on with the first decision in time"
    millis = "never" if held is None else f"{(held[1] - at_ns) / 1e6:.0f} ms"
    return (f"`{fault}`: {WHAT[fault]}", reasons, millis, then), fine


def main(write: Annotated[Path | None, typer.Option(help="a page with the table's two marks")] = None) -> None:
    """Run all, print the table, put it into the page."""
    logging.getLogger("websockets").setLevel(logging.CRITICAL)  # the server that is killed complains
    contract = load_contract("pick101_v19")
    rows, failed = [("fault", "what the loop says", "holds after", "and then"), ("---",) * 4], []
    for fault in WHAT:
        cells, fine = row(fault, contract)
        rows.append(cells)
        failed += [] if fine else [fault]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
    Console().print(table, soft_wrap=True, highlight=False, markup=False)
    if failed:
        Console().print(f"not within {HOLD_WITHIN_S * 1e3:.0f} ms, or an action repeated: {', '.join(failed)}")
        raise typer.Exit(1)
    if write is not None:
        page = write.read_text()
        before, _, rest = page.partition(BEGIN)
        write.write_text(f"{before}{BEGIN}\n{table}\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    typer.run(main)
