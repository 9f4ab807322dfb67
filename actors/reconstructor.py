"""Reconstructor: camera poses and sparse points of a rigid scene from a few of its pictures, with COLMAP on the CPU.

In: pictures on disk, in order. Out: a Reconstruction, in a unit of its own: one moving camera does not tell metres.
Called by data_jobs/egoworld/operators/colmap_pose.py. A scene that cannot be reconstructed is an outcome, not an error.

Same pictures, same result: one thread, one seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from actors.messages import frozen

Outcome = Literal["reconstructed", "no_parallax", "too_few_matches", "too_short"]

LEAST_VIEWS = 3
# Rays that meet under less than this leave a point's depth to noise; COLMAP itself drops points below 1.5°.
LEAST_PARALLAX_DEG = 2.0
# Two pictures with fewer common points than this are not known to show one scene.
LEAST_INLIERS = 30
SEED = 0


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """Of N pictures. `camera_from_world` maps world points into a camera with x right, y down, z forward."""

    outcome: Outcome
    camera_from_world: np.ndarray  # (N, 7) float64: x, y, z, then quaternion w, x, y, z; NaN where unknown
    camera_px: np.ndarray  # (N, 4) float64: focal x, y, principal point x, y, of the pictures given; NaN where unknown
    reprojection_px: np.ndarray  # (N,) float64 mean over the points seen; NaN where unknown
    points: tuple[np.ndarray, ...]  # N × (K, 3) float64: world points by the first picture that shows them

    def __post_init__(self) -> None:
        """Check shapes once and make the arrays read-only."""
        set_, n = object.__setattr__, len(self.camera_from_world)
        set_(self, "camera_from_world", frozen(self.camera_from_world, np.float64, (n, 7), "camera_from_world"))
        set_(self, "camera_px", frozen(self.camera_px, np.float64, (n, 4), "camera_px"))
        set_(self, "reprojection_px", frozen(self.reprojection_px, np.float64, (n,), "reprojection_px"))
        set_(self, "points", tuple(frozen(each, np.float64, (None, 3), "points") for each in self.points))


def failed(outcome: Outcome, views: int) -> Reconstruction:
    """Nothing is known of `views` pictures, and why."""
    unknown = np.full((views, 7), np.nan)
    return Reconstruction(outcome, unknown, unknown[:, :4], unknown[:, 0], (np.zeros((0, 3)),) * views)


def reconstruct(
    folder: Path, names: list[str], work: Path, pinhole_px: tuple[float, float, float] | None = None
) -> Reconstruction:
    """The pictures `names` below `folder`, all of one camera; `work` is an empty folder for COLMAP's own files.

    `pinhole_px` is the camera's focal length and principal point where they are known; else focal length and radial
    distortion are found along with the rest, which a short path may leave uncertain.
    """
    if len(names) < LEAST_VIEWS:
        return failed("too_short", len(names))
    import pycolmap

    pycolmap.logging.minloglevel = pycolmap.logging.FATAL.value
    pycolmap.set_random_seed(SEED)
    database = work / "database.db"
    extraction, matching = pycolmap.FeatureExtractionOptions(), pycolmap.FeatureMatchingOptions()
    extraction.num_threads = matching.num_threads = 1
    extraction.use_gpu = matching.use_gpu = False
    reader = pycolmap.ImageReaderOptions()
    reader.camera_model = "SIMPLE_PINHOLE" if pinhole_px else "SIMPLE_RADIAL"
    reader.camera_params = ",".join(map(str, pinhole_px)) if pinhole_px else ""
    pycolmap.extract_features(
        database, folder, names, pycolmap.CameraMode.SINGLE, reader_options=reader, extraction_options=extraction
    )
    verification = pycolmap.TwoViewGeometryOptions()
    verification.ransac.random_seed = SEED
    pycolmap.match_exhaustive(database, matching_options=matching, verification_options=verification)
    if not _matched(database):
        return failed("too_few_matches", len(names))
    options = pycolmap.IncrementalPipelineOptions()
    options.num_threads, options.random_seed, options.min_model_size = 1, SEED, LEAST_VIEWS
    options.multiple_models, options.extract_colors = False, False
    options.mapper.random_seed = SEED
    # Two pictures cannot tell a long lens from a distant scene, so the lens stays as assumed while pictures are few,
    # and is found when all of them are in place.
    options.ba_refine_focal_length = options.ba_refine_extra_params = False
    options.mapper.abs_pose_refine_focal_length = options.mapper.abs_pose_refine_extra_params = False
    models = pycolmap.incremental_mapping(database, folder, work, options)
    # Pictures matched, and yet no two of them gave points of known depth: the camera only turned, or stood still.
    if not models:
        return failed("no_parallax", len(names))
    model = max(models.values(), key=lambda one: (one.num_reg_images(), one.num_points3D()))
    pycolmap.bundle_adjustment(model, _final(lens_is_known=pinhole_px is not None))
    if model.num_reg_images() < LEAST_VIEWS or _parallax_deg(model) < LEAST_PARALLAX_DEG:
        return failed("no_parallax", len(names))
    return _read(model, names)


def _final(lens_is_known: bool) -> Any:
    """All poses, points and the lens together."""
    import pycolmap

    options = pycolmap.BundleAdjustmentOptions()
    options.refine_focal_length = options.refine_extra_params = not lens_is_known
    options.print_summary = False
    options.ceres.solver_options.num_threads = 1
    return options


def _matched(database: Path) -> bool:
    """Whether enough pictures share enough points."""
    import pycolmap

    with pycolmap.Database.open(database) as held:
        _, geometries = held.read_two_view_geometries()
    return sum(len(one.inlier_matches) >= LEAST_INLIERS for one in geometries) >= LEAST_VIEWS - 1


def _parallax_deg(model: Any) -> float:
    """Median over points of the widest angle between two of their rays."""
    centres = {k: image.projection_center() for k, image in model.images.items() if image.has_pose}
    angles = []
    for point in model.points3D.values():
        rays = np.array([point.xyz - centres[element.image_id] for element in point.track.elements])
        rays /= np.linalg.norm(rays, axis=1, keepdims=True)
        angles.append(np.degrees(np.arccos(np.clip((rays @ rays.T).min(), -1, 1))))
    return float(np.median(angles)) if angles else 0.0


def _read(model: Any, names: list[str]) -> Reconstruction:
    by_name = {image.name: image for image in model.images.values() if image.has_pose}
    nothing = failed("reconstructed", len(names))
    poses, cameras = nothing.camera_from_world.copy(), nothing.camera_px.copy()
    errors, points = nothing.reprojection_px.copy(), list(nothing.points)
    place = {image.image_id: names.index(name) for name, image in by_name.items()}
    first: dict[int, list[np.ndarray]] = {}
    for _, point in sorted(model.points3D.items()):
        first.setdefault(min(place[e.image_id] for e in point.track.elements), []).append(point.xyz)
    for name, image in by_name.items():
        i = names.index(name)
        pose = image.cam_from_world() if callable(image.cam_from_world) else image.cam_from_world
        x, y, z, w = pose.rotation.quat  # COLMAP keeps w last
        poses[i] = (*pose.translation, w, x, y, z)
        camera = model.cameras[image.camera_id]
        cameras[i] = (camera.mean_focal_length(),) * 2 + (camera.principal_point_x, camera.principal_point_y)
        seen = [model.points3D[p.point3D_id].error for p in image.points2D if p.has_point3D()]
        errors[i] = np.mean(seen) if seen else np.nan
    for i, found in first.items():
        points[i] = np.array(found)
    return Reconstruction("reconstructed", poses, cameras, errors, tuple(points))
