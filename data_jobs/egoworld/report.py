"""The page that shows a run to a person: report/report.html with everything in it, and overlay videos beside it.

In: a run folder. Out: one HTML file that asks nothing of any network, and one MP4 for each clip on its contact sheet.
Called by the command line. The report folder is not part of the run's hashed tree and can be deleted at any time.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import av
import jinja2

from data_jobs.egoworld.clip_tables import read_clip_tables
from data_jobs.egoworld.overlay import write_overlay_video
from data_jobs.egoworld.report_clips import TIMELINE_WIDTH, ClipCard, card_of
from data_jobs.egoworld.report_data import ClipSummary, RunSummary, summarise
from data_jobs.runs.errors import InputError, TransientError

TEMPLATE = "report.html.jinja"
# A page with 24 clips weighs about 5 MB and opens at once on a phone; a run may have millions.
CLIPS_SHOWN = 24
DEAD_GROUPS_SHOWN = 50
# Raised when overlays of equal tables should look different: old ones are then drawn again.
DRAWING_VERSION = 1


def write_report(run_folder: Path, clips_shown: int = CLIPS_SHOWN) -> Path:
    """Write `run_folder/report/report.html` and the shown clips' overlay videos; returns the page's path.

    An overlay that is already there and was drawn from the same tables is kept. A clip whose video cannot be read any
    more is shown without pictures, and says why. Raises RunError when the folder is no readable run.
    """
    summary = summarise(run_folder)
    folder = run_folder / "report"
    (folder / "overlay").mkdir(parents=True, exist_ok=True)
    cards = [_card(clip, folder) for clip in _most_found(summary.clips, clips_shown)]
    page, unfinished = folder / "report.html", folder / ".report.html.part"
    unfinished.write_text(render(summary, cards), encoding="utf-8", errors="replace")
    unfinished.replace(page)
    return page


def render(summary: RunSummary, cards: list[ClipCard]) -> str:
    """The page as one string. Everything that comes from the run is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(TEMPLATE).render(
        run=summary,
        record=summary.record,
        cards=cards,
        dead_groups=summary.dead_groups[:DEAD_GROUPS_SHOWN],
        timeline_width=TIMELINE_WIDTH,
    )


def _most_found(clips: tuple[ClipSummary, ...], count: int) -> list[ClipSummary]:
    """The clips with most hands and masks, in the manifest's order."""
    ranked = sorted(range(len(clips)), key=lambda at: (-clips[at].found, at))[:count]
    return [clips[at] for at in sorted(ranked)]


def _card(summary: ClipSummary, folder: Path) -> ClipCard:
    path = folder / "overlay" / f"{summary.clip.clip_id}.mp4"
    key = overlay_key(summary.folder)
    try:
        if _comment(path) != key:
            write_overlay_video(summary.clip, read_clip_tables(summary.folder), path, comment=key)
    except (InputError, TransientError, OSError) as error:
        return card_of(summary, overlay="", trouble=str(error))
    return card_of(summary, overlay=f"overlay/{path.name}")


def overlay_key(clip_folder: Path) -> str:
    """What an overlay was drawn from: sha256 over the clip's tables and the version of the drawing."""
    digest = hashlib.sha256(f"drawing {DRAWING_VERSION}".encode())
    for name in ("hand_pose.parquet", "masks.parquet"):
        path = clip_folder / name
        digest.update(hashlib.sha256(path.read_bytes() if path.exists() else b"").digest())
    return digest.hexdigest()


def _comment(path: Path) -> str:
    """The comment kept in an overlay; empty when there is none that can be read, so that it is drawn anew."""
    try:
        with av.open(str(path)) as container:
            return str(container.metadata.get("comment", ""))
    except (av.FFmpegError, OSError):
        return ""
