// The page: ties the picture, the targets, the numbers and the robot together.
import { ask, keepToken, open, token } from "./net.js";
import { pack, unpack } from "./wire.js";
import { Tracker } from "./tracker.js";
import { COLOURS, Histogram, joints, overlay, tag } from "./draw.js";

const $ = (id) => document.getElementById(id);
const PHASES = ["acquire", "verify", "track", "suspect", "lost"];
const chosen = new Set();
const histogram = new Histogram($("histogram"), $("numbers"));

function say(id, text) { $(id).textContent = text; $(id).hidden = !text; }
function pill(id, text, kind) { $(id).textContent = text; $(id).className = `pill ${kind}`; }

// --- health ------------------------------------------------------------------------------------------------------
async function health() {
  try {
    const status = await ask("GET", "/v1/status");
    const all = Object.values(status.models).every((model) => model.up);
    pill("health", all ? "healthy" : "starting", all ? "good" : "warm");
    $("models").replaceChildren(...Object.entries(status.models).map(([name, model]) => {
      const dot = tag("span", name, model.up ? "up" : "");
      dot.title = model.up ? `${(model.memory_bytes / 2 ** 20).toFixed(0)} MiB, up ${model.up_s} s` : model.why;
      return dot;
    }));
  } catch (error) {
    $("token").hidden = error.status !== 401;
    pill("health", error.status === 401 ? "token required" : "away", "bad");
  }
  setTimeout(health, 3000);
}
$("token").onclick = () => { const given = prompt("Bearer token of this service"); if (given) { keepToken(given); location.reload(); } };

// --- targets -----------------------------------------------------------------------------------------------------
async function targets() {
  let again = 4000;
  try {
    const listing = await ask("GET", "/v1/targets");
    if (listing.some((target) => ["waiting", "building"].includes(target.state))) again = 300;
    show(listing);
  } catch (error) { if (error.status !== 401) say("refused", error.message); }
  clearTimeout(targets.timer);
  targets.timer = setTimeout(targets, again);
}

function show(listing) {
  $("count").textContent = listing.length;
  $("targets").replaceChildren(...listing.map((target) => {
    const row = tag("li"), tick = tag("input"), label = tag("label", target.name), remove = tag("button", "×");
    row.dataset.target = target.id; row.dataset.state = target.state;
    tick.type = "checkbox"; tick.id = `target-${target.id}`; tick.disabled = target.state !== "ready" || tracker.running;
    tick.checked = chosen.has(target.id);
    tick.onchange = () => { tick.checked ? chosen.add(target.id) : chosen.delete(target.id); ready(); };
    label.htmlFor = tick.id; label.title = target.why || target.name;
    let told = tag("small", target.state === "ready" ? `${target.views} view${target.views === 1 ? "" : "s"}` : target.state);
    if (target.state === "building") { told = tag("progress"); told.value = target.progress; }
    remove.title = "Delete"; remove.type = "button";
    remove.onclick = () => ask("DELETE", `/v1/targets/${target.id}`).then(() => { chosen.delete(target.id); ready(); targets(); }, (error) => say("refused", error.message));
    row.append(tick, label, told, remove);
    if (target.state === "failed") { told.title = target.why; say("refused", `${target.name}: ${target.why}`); }
    return row;
  }));
}

async function upload(file) {
  say("refused", "");
  const name = file.name.replace(/\.[^.]+$/, "").slice(0, 80) || "target";
  try {
    const made = await ask("POST", `/v1/targets?name=${encodeURIComponent(name)}`, file, "application/octet-stream");
    chosen.add(made.id);
    ready();
  } catch (error) { say("refused", error.message); }
  targets();
}
$("upload").onchange = (event) => { [...event.target.files].forEach(upload); event.target.value = ""; };
for (const kind of ["dragenter", "dragover"]) $("drop").addEventListener(kind, (event) => { event.preventDefault(); $("drop").classList.add("over"); });
for (const kind of ["dragleave", "drop"]) $("drop").addEventListener(kind, (event) => { event.preventDefault(); $("drop").classList.remove("over"); });
$("drop").addEventListener("drop", (event) => [...event.dataTransfer.files].forEach(upload));

// --- live --------------------------------------------------------------------------------------------------------
const video = $("video");
const tracker = new Tracker(video, {
  state(message, picture, roundTripMs) {
    $("view").classList.remove("empty");
    overlay($("canvas"), picture, message.objects);
    phases(message.objects);
    histogram.add(roundTripMs, message.ms, message);
    $("rate").textContent = `${histogram.rate().toFixed(1)} fps`;
  },
  event(kind, message) {
    if (kind === "welcome") pill("session", `session ${message.session.slice(0, 6)}…`, "good");
    if (kind === "resumed") pill("session", `resumed at frame ${message.frames}`, "warm");
    if (kind === "away") pill("session", "reconnecting…", "bad");
    if (kind === "ended") stopped();
  },
  problem: (text) => say("problem", text),
});

function phases(objects) {
  $("objects").replaceChildren(...objects.map((object, index) => {
    const row = tag("div", "", "object"), name = tag("b", object.name), strip = tag("div", "", "phases");
    row.dataset.phase = object.phase;
    name.style.setProperty("--own", COLOURS[index % COLOURS.length]);
    strip.append(...PHASES.map((phase) => tag("span", phase.toUpperCase(), phase === object.phase ? `now ${phase}` : "")));
    const score = object.score === null ? "" : ` · score ${object.score.toFixed(2)} / ${object.threshold.toFixed(2)}`;
    row.append(name, strip, tag("p", `${object.reason.replaceAll("_", " ")}${score}`, "why"));
    return row;
  }));
}

function ready() { $("track").disabled = !tracker.running && !(chosen.size && (video.src || video.srcObject)); }

async function source(stream, url) {
  video.srcObject?.getTracks().forEach((track) => track.stop());
  video.srcObject = stream;
  if (url) video.src = url; else video.removeAttribute("src");
  await video.play();
  if (!tracker.running) preview();
  ready();
}

function preview() {
  if (tracker.running || !video.videoWidth) return;
  $("view").classList.remove("empty");
  const canvas = $("canvas");
  canvas.width = video.videoWidth; canvas.height = video.videoHeight;
  canvas.getContext("2d").drawImage(video, 0, 0);
  requestAnimationFrame(preview);
}

$("file").onchange = (event) => { const [file] = event.target.files; if (file) source(null, URL.createObjectURL(file)).catch((error) => say("problem", `this browser cannot play ${file.name}: ${error.message}`)); };
$("webcam").onclick = () => navigator.mediaDevices.getUserMedia({ video: { width: 1280 } }).then((stream) => source(stream), (error) => say("problem", `no webcam: ${error.message}`));
$("track").onclick = () => {
  if (tracker.running) { tracker.stop(); stopped(); return; }
  say("problem", "");
  tracker.start([...chosen]);
  $("track").textContent = "Stop tracking";
  targets();
};
function stopped() { pill("session", "no session", "quiet"); $("track").textContent = "Start tracking"; tracker.running = false; targets(); ready(); preview(); }

// --- robot -------------------------------------------------------------------------------------------------------
const KINDS = { move: "good", hold: "warm", return: "", estop: "bad" };
let picture = null;

function watch() {
  const socket = open("/v1/control/stream");
  socket.onmessage = (event) => {
    const { state, jpeg } = unpack(event.data);
    arm(state);
    if (jpeg) {
      if (picture) URL.revokeObjectURL(picture);
      $("wrist").src = picture = URL.createObjectURL(new Blob([jpeg], { type: "image/jpeg" }));
    }
    socket.send(pack({ type: "seen" }));
  };
  socket.onclose = () => setTimeout(watch, 1500);
}

function arm(state) {
  const latched = Boolean(state.estop), live = state.phase === "running" || state.phase === "returning";
  pill("arm", latched ? "e-stop latched" : live && state.loop ? `${state.phase} · ${state.loop}` : state.phase, latched ? "bad" : live ? KINDS[state.loop] ?? "" : "quiet");
  $("arm").dataset.phase = state.phase; $("arm").dataset.ticks = state.tick ?? 0;
  joints($("joints"), state);
  const late = state.late_ms ? `late p50 ${state.late_ms.p50.toFixed(2)} · p99 ${state.late_ms.p99.toFixed(2)} ms · ${state.missed} missed` : "";
  $("armwhy").textContent = state.why || state.estop || [state.reason && state.reason.replaceAll("_", " "), late].filter(Boolean).join(" · ");
  $("start").disabled = live || state.phase === "starting";
  $("start").textContent = latched ? "Release and start" : "Start";
  $("start").dataset.release = latched ? "1" : "";
  $("stop").disabled = !live;
}

async function command(name, body) {
  try { arm(await ask("POST", `/v1/control/${name}`, body && JSON.stringify(body), body && "application/json")); }
  catch (error) { $("armwhy").textContent = error.message; }
}
$("start").onclick = () => {
  const release = Boolean($("start").dataset.release);
  if (release && !confirm("Has somebody looked at the arm? This releases the emergency stop and starts it.")) return;
  command("start", { release_estop: release });
};
$("stop").onclick = () => { $("stop").disabled = true; command("stop"); };
$("estop").onclick = () => command("estop");

if (!token()) $("token").hidden = true;
health(); targets(); watch();
