"""One run from inputs to proof: manifest, ledger, engine, proof, run_manifest.json. Called by __main__.py.

Running it again with the same output and run id resumes: what is published stays, the rest is done. A run that cannot
start, or whose place fails, raises RunError with one sentence.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from data_jobs.egoworld.bare import SpeedOfLight, bare_seconds, sample
from data_jobs.egoworld.config import EgoworldConfig
from data_jobs.egoworld.letters import read_letters
from data_jobs.egoworld.listing import Listing, make_listing, open_listing
from data_jobs.egoworld.plan import Plan, make_plan
from data_jobs.egoworld.progress import Progress
from data_jobs.egoworld.qc import Verdict, judge
from data_jobs.egoworld.task import EgoworldJob, host_of
from data_jobs.runs.engine import Engine, open_ledger, run_local, run_ray
from data_jobs.runs.errors import RunError
from data_jobs.runs.guard import PUBLISH, Outcome
from data_jobs.runs.keys import pretty_json
from data_jobs.runs.ledger import UnitState
from data_jobs.runs.outcome import Failure
from data_jobs.runs.places import Where, open_run
from data_jobs.runs.proof import Proof, prove, published_ids
from data_jobs.runs.strict import parse
from models import weights

# The stages' rates are asked of the ledger this often: often enough to watch, too seldom to cost.
LOOK_EVERY_S = 2.0

# Behind an actor every call is one message, and a million clips in one would fill the object store.
UNITS_PER_CALL = 20_000


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What the command line asked for."""

    inputs: tuple[Path, ...]
    job: EgoworldJob
    engine: Engine
    config_path: str | None

    @property
    def plan(self) -> Plan:
        """The job's plan."""
        return self.job.plan


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run ended."""

    proof: Proof
    totals: dict[str, Any]
    stages: dict[str, tuple[int, int, float]]  # name → attempts, failed attempts, seconds
    speed: SpeedOfLight | None
    seconds: float
    verdict: Verdict


def execute(request: RunRequest, progress: Progress) -> RunResult:
    """Run or resume; returns when every clip is accounted for, or RunError says why not."""
    started = time.monotonic()
    job = request.job
    with job.store.lock():
        job.store.prepare()
        job.store.sweep()
        refuse_another_run(request)
        listing = make_listing(request.inputs, request.plan.config.chosen_splitter(), job, progress)
        write_run_manifest(request, {"state": "running"})
        todo = left_to_do(listing.clips, job)
        speed, stages = work(request, listing, todo, progress)
        job.store.sweep()  # of workers that died while they published, in this very run
        proof = prove(listing.unit_ids, job.run_folder)
        totals = listing.totals() | {"done": proof.done, "dead": proof.dead}
        letters = read_letters(job.run_folder)
        verdict, table = judge(job.run, letters, proof.planned, request.plan.config.metrics)
        job.store.replace_file(job.run.at("qc.parquet"), table)
        result = RunResult(proof, totals, stages, speed, time.monotonic() - started, verdict)
        write_run_manifest(request, closing(result))
    return result


def left_to_do(clips: pa.Table, job: EgoworldJob) -> pa.Table:
    """Rows without a published folder or dead letter, longest first so that the end of the run is even."""
    done, dead = published_ids(job.run_folder)
    settled = pa.array([*done, *dead], pa.string())
    rest = clips.filter(pc.invert(pc.is_in(clips["clip_id"], value_set=settled)))
    frames = pc.subtract(rest["frame_end"], rest["frame_start"])
    order = pc.sort_indices(
        pa.table({"frames": frames, "clip_id": rest["clip_id"]}),
        sort_keys=[("frames", "descending"), ("clip_id", "ascending")],
    )
    return rest.take(order)


def work(
    request: RunRequest, listing: Listing, todo: pa.Table, progress: Progress
) -> tuple[SpeedOfLight | None, dict[str, tuple[int, int, float]]]:
    """Take the rows of `todo` through their stages; returns the speed-of-light ratio and the stages' costs."""
    with ledger_of(request) as ledger:
        epoch = ledger.begin(request.job.run_id, request.engine, request.plan.config.model_dump_json())
        fill_ledger(ledger, listing, request.job)
        if len(todo):
            engine: Callable[..., Iterator[Outcome]] = run_ray if request.engine == "ray" else run_local
            rates = partial(ledger.stage_rates, epoch)
            follow(engine(host_of(request.job), todo, ledger, epoch), listing, len(todo), progress, rates)
        stages = ledger.stage_seconds(epoch)
        ledger.end(epoch, "finished")
        speed = measure_speed(request, todo, ledger, epoch, progress)
        if speed and request.engine == "ray":
            ledger.show_speed(speed.ratio)
    return speed, stages


def ledger_of(request: RunRequest) -> AbstractContextManager[Any]:
    """The run's ledger, open."""
    path = str(request.job.store.ledger_path(request.job.run.name))
    return open_ledger(path, request.engine, "egoworld", request.job.run_id)


def fill_ledger(ledger: Any, listing: Listing, job: EgoworldJob) -> None:
    """Bring the ledger's units in line with the published tree, which is the truth."""
    done, dead = published_ids(job.run_folder)
    published: tuple[UnitState, UnitState] = ("Done", "Dead")
    settled = dict.fromkeys(done, published[0]) | dict.fromkeys(dead, published[1])
    columns = listing.clips.select(["clip_id", "video_id", "frame_start", "frame_end"])
    for batch in columns.to_batches(max_chunksize=UNITS_PER_CALL):
        by_state: dict[UnitState, list[tuple[str, str, int]]] = {"Pending": [], "Done": [], "Dead": []}
        for clip_id, video_id, start, end in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            by_state[settled.get(clip_id, "Pending")].append((clip_id, video_id, end - start))
        for state, units in by_state.items():
            if units:
                ledger.register(units, state)
    for letter in read_letters(job.run_folder):
        if letter.clip_id is not None:
            failure = Failure(letter.cause, letter.error_type, letter.message, letter.traceback_sha256)
            ledger.bury(letter.clip_id, letter.stage, failure, letter.attempts)


def follow(
    outcomes: Iterator[Outcome], listing: Listing, todo: int, progress: Progress, rates: Callable[[], dict[str, float]]
) -> None:
    """Drain the engine, counting; `rates` gives each stage's frames per second."""
    already = len(listing.clips) - todo
    progress.phase("clips", len(listing.clips), already)
    done, dead, frames, start = already, 0, 0, time.monotonic()
    looked, per_stage = 0.0, ""
    for outcome in outcomes:
        done += 1
        dead += outcome.result == "dead"
        frames += outcome.frames
        left = progress.eta_s(done, len(listing.clips))
        rate = frames / (time.monotonic() - start)
        if time.monotonic() - looked >= LOOK_EVERY_S:
            looked = time.monotonic()
            per_stage = "".join(f" · {stage} {fps:.0f}/s" for stage, fps in rates().items() if stage != PUBLISH)
        left_s = f" · {left:.0f} s left" if left else ""
        progress.update(done, f"{rate:.1f} frames/s{per_stage} · {dead} dead{left_s}")


def measure_speed(
    request: RunRequest, todo: pa.Table, ledger: Any, epoch: int, progress: Progress
) -> SpeedOfLight | None:
    """The bare loop on a sample of the clips that this epoch finished; None when it finished none or is told not to."""
    wanted = request.plan.config.speed_of_light.sample_frames
    worked = ledger.worked_on(epoch, len(request.plan.stage_names)) if wanted else []
    finished = todo.filter(pc.is_in(todo["clip_id"], value_set=pa.array(worked, pa.string())))
    # What was taken over from an earlier run was not computed, so a rate over it would say nothing.
    if not len(finished) or len(finished) < len(todo) / 2:
        return None
    workers = request.plan.config.workers() if request.engine == "ray" else 1
    workers = min(workers, len(finished))
    rows = sample(finished, workers, wanted)
    own_s = ledger.seconds_of([row["clip_id"] for row in rows], epoch)
    all_s = ledger.seconds_of(finished["clip_id"].to_pylist(), epoch)
    span_s = ledger.busy_span_s(epoch)
    progress.phase("bare loop", 1)
    bare_s = bare_seconds(request.plan, rows, workers)
    if bare_s is None or not own_s or not span_s:
        return None
    ratio = (bare_s / own_s) * (all_s / (workers * span_s))
    frames_per_s = sum(request.job.frames(row) for row in finished.to_pylist()) / span_s
    sampled = sum(request.job.frames(row) for row in rows)
    return SpeedOfLight(frames_per_s, frames_per_s / ratio, ratio, len(rows), sampled)


# --- run_manifest.json --------------------------------------------------------------------------------------------


def run_manifest(where: Where) -> dict[str, Any]:
    """What a run recorded of itself; RunError if there is no run."""
    try:
        return dict(json.loads(open_run(where).read("run_manifest.json")))
    except (OSError, ValueError) as error:
        raise RunError(f"{where} is not a run: run_manifest.json is missing or unreadable ({error})") from error


def refuse_another_run(request: RunRequest) -> None:
    """A run id stands for one config and one set of inputs; RunError names what differs from the earlier start."""
    run = request.job.run
    if not run.store.exists(run.at("run_manifest.json")):
        return
    before, now = run_manifest(request.job.run_folder), identity(request)
    changed = list(_changes({key: before.get(key) for key in now}, now))
    if changed:
        details = "; ".join(f"{name} was {_short(then)}, is {_short(value)}" for name, then, value in changed)
        raise RunError(
            f"run {request.job.run_id} in {request.job.output} was started differently ({details}); "
            "choose another --run-id: stages that did not change are taken over, not computed again"
        )


def _changes(before: Any, now: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Dotted name, earlier and present value of every leaf that differs."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted({*before, *now}):
            yield from _changes(before.get(key), now.get(key), f"{name}.{key}" if name else key)
    elif before != now:
        yield name, before, now


def identity(request: RunRequest) -> dict[str, Any]:
    """What must stay the same when a run is resumed: inputs, what is computed, and how it is written."""
    config = request.plan.config
    return {
        "inputs": [str(path.absolute()) for path in request.inputs],
        "splitter": {"name": config.chosen_splitter().label} | config.chosen_splitter().params(),
        "stages": {
            stage.spec.name: {"version": stage.spec.version, "published": stage.published, "weights": stage.weights}
            | {"params": stage.key_params}
            for stage in request.plan.stages
        },
        "parquet_params": config.parquet.model_dump_json(),
    }


def write_run_manifest(request: RunRequest, closing: dict[str, Any]) -> None:
    """Write run_manifest.json: the seed's fields, what identifies the run, and how it stands."""
    config, run = request.plan.config, request.job.run
    try:
        created = run_manifest(request.job.run_folder)["created_at"]
    except RunError:
        created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    versions = config.model_versions | {
        name: sha for stage in request.plan.stages for name, sha in stage.weights.items()
    }
    record = {
        "run_id": request.job.run_id,
        "created_at": created,
        "config_path": request.config_path,
        "code_git_hash": config.code_git_hash,
        "model_versions": json.dumps(versions),
        "dataset_hash": config.dataset_hash,
        "coordinate_spec_version": config.coordinates.spec_version,
        "mask_encoding": config.coordinates.mask_encoding,
        "time_base": config.coordinates.time_base,
        "engine": request.engine,
        **identity(request),
        "config": config.model_dump(mode="json", exclude_none=True),
        **closing,
    }
    run.store.replace_file(run.at("run_manifest.json"), pretty_json(record))


def closing(result: RunResult) -> dict[str, Any]:
    """The part of run_manifest.json that is known at the end."""
    return {
        "state": "finished" if result.proof.holds else "unaccounted",
        "proof": result.proof.sentence(),
        "qc": asdict(result.verdict),
        "totals": result.totals,
        "tree_sha256": result.proof.tree_sha256,
        "seconds": round(result.seconds, 3),
        "stage_costs": {
            name: {"attempts": attempts, "failed": failed, "seconds": round(seconds, 3)}
            for name, (attempts, failed, seconds) in result.stages.items()
        },
        "speed_of_light": asdict(result.speed) if result.speed else None,
    }


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 120 else text[:117] + "…"


# --- an earlier run, opened again ---------------------------------------------------------------------------------


def reopen(where: Where, engine: Engine) -> RunRequest:
    """The request of an earlier run, from what it recorded; RunError if the folder is not a run."""
    record = run_manifest(where)
    config = parse(EgoworldConfig, record["config"], f"{where}/run_manifest.json")
    plan, _ = make_plan(config, weights.sha256_of)
    output = where.absolute().parent if isinstance(where, Path) else where.rpartition("/")[0]
    job = EgoworldJob(plan, output, record["run_id"])
    return RunRequest(tuple(Path(path) for path in record["inputs"]), job, engine, record["config_path"])


def rebuild_ledger(where: Where) -> dict[str, tuple[int, int]]:
    """Throw the ledger away and fill a new one from the published tree; returns its counts by state."""
    request, listing = reopen(where, "local"), open_listing(where)
    store = request.job.store
    with store.lock():
        store.prepare()
        ledger_path = store.ledger_path(request.job.run.name)
        for path in ledger_path.parent.glob(f"{ledger_path.name}*"):
            path.unlink()
        with ledger_of(request) as ledger:
            fill_ledger(ledger, listing, request.job)
            return dict(ledger.counts())
