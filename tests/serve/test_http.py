"""The REST routes of the running service: targets with progress, control of the simulated arm, OpenAPI fuzzed."""

import json
import time
import urllib.request
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings

from tests.serve import scene
from tests.serve.test_uploads import stl


def upload(service, name, data):
    return service.ask("POST", f"/v1/targets?name={quote(name)}", data, {"Content-Type": "application/octet-stream"})


def settled(service, target):
    deadline_s = time.monotonic() + 20
    while time.monotonic() < deadline_s:
        told = service.get(f"/v1/targets/{target}")[1]
        if told["state"] in ("ready", "failed"):
            return told
        time.sleep(0.05)
    raise AssertionError(told)


def test_a_target_lives_from_upload_to_deletion(service):
    status, made = upload(service, "blue", scene.archive((20, 60, 230), views=5))
    assert status == 202 and made["state"] in ("waiting", "building", "ready")
    told = settled(service, made["id"])
    assert told["state"] == "ready" and told["views"] == 5 and told["progress"] == 1.0 and told["bank_bytes"] > 0
    assert made["id"] in [target["id"] for target in service.get("/v1/targets")[1]]
    again = upload(service, "blue again", scene.archive((20, 60, 230), views=5))[1]
    assert again["id"] == made["id"]  # the same content is the same target
    assert service.ask("DELETE", f"/v1/targets/{made['id']}")[0] == 204
    assert service.get(f"/v1/targets/{made['id']}")[0] == 404
    assert service.ask("DELETE", f"/v1/targets/{made['id']}")[0] == 404


@pytest.mark.parametrize(
    "data, status, reason",
    [(b"", 422, "no body"), (b"MZ not a mesh", 422, "neither a zip"), (b"\0" * 65 * 1024 * 1024, 413, "at most")],
)
def test_bad_uploads_are_refused_at_once(service, data, status, reason):
    code, told = upload(service, "x", data)
    assert code == status and reason in told["reason"]


def test_what_turns_out_bad_while_building_says_why(service):
    made = upload(service, "slip", scene.zipped({"../../x": b"1"}))[1]
    told = settled(service, made["id"])
    assert told["state"] == "failed" and "leaves its folder" in told["why"]
    assert settled(service, upload(service, "mesh", stl(2))[1]["id"])["state"] == "failed"  # colours need pictures


@pytest.mark.parametrize("target", ["..%2F..%2Fetc%2Fpasswd", "%2e%2e", "x" * 500, "a%00b"])
def test_no_path_reaches_the_file_system(service, target):
    status, told = service.get(f"/v1/targets/{target}")
    assert status == 404 and "etc" not in str(told).replace("etc/passwd", "")
    assert service.get(f"/viewer/{target}")[0] == 404


def wait_for(service, wanted, patience_s=40):
    deadline_s = time.monotonic() + patience_s
    while time.monotonic() < deadline_s:
        told = service.get("/v1/control")[1]
        if wanted(told):
            return told
        time.sleep(0.1)
    raise AssertionError(told)


def test_the_arm_starts_moves_stops_and_is_at_rest(service):
    assert service.post("/v1/control/start", {"policy": "scripted"})[0] == 200
    first = wait_for(service, lambda told: told.get("loop") == "move")
    moved = wait_for(service, lambda told: apart(told["measured_rad"], first["measured_rad"]) > 0.05)
    assert moved["phase"] == "running" and moved["rate_hz"] == 50
    assert service.post("/v1/control/start")[0] == 409
    status, told = service.post("/v1/control/stop")
    assert status == 200 and told["phase"] == "idle" and told["why"] == ""


def apart(one, other):
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def test_the_emergency_stop_latches_until_a_person_releases_it(service):
    service.post("/v1/control/start", {"policy": "scripted"})
    wait_for(service, lambda told: told.get("loop") == "move")
    began_s = time.monotonic()
    assert service.post("/v1/control/estop")[1]["estop"]
    told = wait_for(service, lambda told: told["loop"] == "estop", 5)
    assert time.monotonic() - began_s < 2
    still = told["command_rad"]
    time.sleep(0.5)
    assert apart(service.get("/v1/control")[1]["command_rad"], still) < 0.02
    service.post("/v1/control/stop")
    status, told = service.post("/v1/control/start")
    assert status == 409 and "latched" in told["reason"]
    assert service.post("/v1/control/start", {"policy": "scripted", "release_estop": True})[0] == 200
    wait_for(service, lambda told: told.get("loop") == "move")
    assert service.post("/v1/control/stop")[1]["phase"] == "idle"


@pytest.mark.parametrize("body", [{"policy": "rm -rf"}, {"seconds": -1}, {"seed": 1e99}, {"robot": "so101"}, [], 3])
def test_control_takes_nothing_but_what_it_names(service, body):
    status, told = service.ask(
        "POST", "/v1/control/start", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    assert status == 422 and told["reason"]


def test_the_page_and_its_parts_are_served_with_their_policy(service):
    with urllib.request.urlopen(service.http) as page:
        assert page.status == 200 and "default-src 'self'" in page.headers["Content-Security-Policy"]
    assert service.get("/openapi.json")[1]["info"]["title"] == "Reafference"


def test_schemathesis_finds_nothing_but_answers_with_a_reason(service):
    schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")
    schema = schemathesis.openapi.from_url(f"{service.http}/openapi.json")
    for operation in schema.exclude(path_regex="control/(start|stop)").get_all_operations():

        @settings(max_examples=12, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.ok().as_strategy())
        def answers(case):
            answer = case.call(base_url=service.http)
            assert answer.status_code < 500, f"{case.method} {case.path}: {answer.status_code} {answer.text[:300]}"
            if answer.status_code >= 400:
                assert answer.json()["reason"]

        answers()
