"""Configs, dashboard and metrics agree with the code; `serve.app` is what `serve run` needs."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from serve.metrics import NAMES
from serve.models import imported
from serve.settings import Settings, settings_of

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted((ROOT / "configs").glob("serve_*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_is_valid_and_names_what_exists(path):
    from ray.serve.schema import ServeDeploySchema

    config = yaml.safe_load(path.read_text())
    ServeDeploySchema.model_validate(config)
    settings = settings_of(config["applications"][0]["args"])
    for path in (*(model.factory for model in settings.models.values()), settings.tracking.backend):
        assert callable(imported(path)), path


def test_the_written_out_config_is_the_default():
    config = yaml.safe_load((ROOT / "configs" / "serve_cpu.yaml").read_text())
    given = settings_of(config["applications"][0]["args"])
    assert given.models == Settings().models and given.limits == Settings().limits
    assert config["http_options"]["host"] == "127.0.0.1"


@pytest.mark.parametrize(
    "args, reason",
    [
        ({"modells": {}}, "modells"),
        ({"tracking": {"replicas": 0}}, "tracking.replicas"),
        ({"models": {"x": {"factory": "os.system('ls')"}}}, "models.x.factory"),
    ],
)
def test_wrong_settings_are_one_sentence(args, reason):
    with pytest.raises(ValueError, match=reason):
        settings_of(args)


def test_the_dashboard_shows_metrics_that_exist_and_all_of_them():
    panels = json.loads((ROOT / "configs" / "grafana_serve.json").read_text())["panels"]
    shown = set()
    for panel in panels:
        for target in panel["targets"]:
            shown |= set(re.findall(r"ray_(reafference_\w+)", target["expr"]))
    assert {re.sub("_(total|bucket)$", "", name) for name in shown} == set(NAMES)


def test_serve_app_resolves_from_the_repository_root():
    """In a fresh interpreter, the way Ray Serve's own command imports it; Ray's module keeps its name."""
    code = (
        "from ray._common.utils import import_attr; import types; from ray import serve as theirs; "
        "found = import_attr('serve.app'); assert isinstance(found, types.FunctionType), found; "
        "assert import_attr('serve.app') is found; assert theirs.deployment; import ray.serve.config"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)
