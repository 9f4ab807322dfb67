// Everything that is drawn: the picture with its masks, the latency histogram, the joints.
export const COLOURS = ["#35d0ba", "#ffb454", "#6cb2ff", "#ff7ab6", "#b693ff", "#5ee08a", "#ffd866", "#ff8a5d"];
const SOLID = new Set(["track", "verify"]);

export function overlay(canvas, picture, objects) {
  if (canvas.width !== picture.width * 2) { canvas.width = picture.width * 2; canvas.height = picture.height * 2; }
  const context = canvas.getContext("2d");
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  context.setTransform(2, 0, 0, 2, 0, 0);
  objects.forEach((object, index) => outline(context, object, COLOURS[index % COLOURS.length]));
}

function outline(context, object, colour) {
  if (!object.contours?.length) return;
  const path = new Path2D();
  for (const { values } of object.contours) {
    path.moveTo(values[0] + 0.5, values[1] + 0.5);
    for (let i = 2; i < values.length; i += 2) path.lineTo(values[i] + 0.5, values[i + 1] + 0.5);
    path.closePath();
  }
  context.fillStyle = colour + (SOLID.has(object.phase) ? "66" : "2a");
  context.fill(path, "evenodd");
  context.strokeStyle = colour;
  context.lineWidth = 1.6;
  context.setLineDash(object.phase === "track" ? [] : [4, 3]);
  context.stroke(path);
  context.setLineDash([]);
  const [x, y] = object.box_px;
  const label = `${object.name} · ${object.phase}`;
  context.font = "600 11px system-ui, sans-serif";
  const width = context.measureText(label).width + 12, top = Math.max(2, y - 20);
  context.fillStyle = "#0b1016d0";
  context.beginPath(); context.roundRect(x, top, width, 17, 4); context.fill();
  context.fillStyle = colour;
  context.fillText(label, x + 6, top + 12.5);
}

export class Histogram {
  constructor(canvas, numbers) { this.canvas = canvas; this.numbers = numbers; this.values = []; this.arrived = []; }

  add(roundTripMs, stages, counts) {
    this.values.push(roundTripMs); if (this.values.length > 500) this.values.shift();
    this.arrived.push(performance.now()); if (this.arrived.length > 30) this.arrived.shift();
    this.draw(stages, counts);
  }

  rate() {
    const span = this.arrived.at(-1) - this.arrived[0];
    return span > 0 ? (1000 * (this.arrived.length - 1)) / span : 0;
  }

  draw(stages, counts) {
    const sorted = [...this.values].sort((a, b) => a - b), at = (share) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
    const low = Math.log2(Math.max(1, sorted[0] * 0.8)), high = Math.max(low + 1, Math.log2(sorted.at(-1) * 1.25)), bins = new Array(32).fill(0);
    for (const value of sorted) bins[Math.min(31, Math.max(0, Math.floor(((Math.log2(Math.max(1, value)) - low) / (high - low)) * 32)))]++;
    const { width, height } = this.canvas, context = this.canvas.getContext("2d"), top = Math.max(...bins), wide = width / 32;
    context.clearRect(0, 0, width, height);
    bins.forEach((count, i) => {
      const tall = (count / top) * (height - 34);
      context.fillStyle = "#35d0ba"; context.globalAlpha = count ? 0.9 : 0.15;
      context.beginPath(); context.roundRect(i * wide + 2, height - 26 - Math.max(2, tall), wide - 4, Math.max(2, tall), 3); context.fill();
    });
    context.globalAlpha = 1; context.fillStyle = "#8b9aab"; context.font = "20px system-ui, sans-serif";
    context.textAlign = "left"; context.fillText(`${(2 ** low).toFixed(0)} ms`, 2, height - 4);
    context.textAlign = "right"; context.fillText(`${(2 ** high).toFixed(0)} ms`, width - 2, height - 4);
    context.textAlign = "center"; context.fillText("round trip, log scale", width / 2, height - 4);
    const rows = { p50: `${at(0.5).toFixed(1)} ms`, p99: `${at(0.99).toFixed(1)} ms`, tracker: `${stages.track.toFixed(1)} ms`, "dropped · late": `${counts.dropped} · ${counts.missed}` };
    this.numbers.replaceChildren(...Object.entries(rows).map(([name, value]) => {
      const cell = document.createElement("div");
      cell.append(tag("dt", name), tag("dd", value));
      return cell;
    }));
  }
}

export function tag(name, content = "", className = "") {
  const made = document.createElement(name);
  made.textContent = content;
  if (className) made.className = className;
  return made;
}

export function joints(box, state) {
  if (box.children.length !== state.joints.length) {
    box.replaceChildren(...state.joints.map((name) => {
      const row = tag("div", "", "joint"), track = tag("div", "", "track");
      track.append(tag("div", "", "goal"), tag("div", "", "dot"));
      row.append(tag("span", name.replace("_", " ")), track, tag("output", "–"));
      return row;
    }));
  }
  state.joints.forEach((_, i) => {
    const row = box.children[i], low = state.lower_rad[i], high = state.upper_rad[i];
    const place = (value) => `${Math.min(100, Math.max(0, (100 * (value - low)) / (high - low)))}%`;
    const now = state.measured_rad?.[i];
    if (now === undefined || now === null) return;
    row.querySelector(".dot").style.left = place(now);
    row.querySelector(".goal").style.left = place(state.command_rad[i]);
    row.querySelector("output").textContent = `${((now * 180) / Math.PI).toFixed(1)}°`;
  });
}
