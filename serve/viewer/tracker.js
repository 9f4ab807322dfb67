// One tracking session: newest picture out when the last answer is in, each answer drawn on its own picture.
import { pack, unpack } from "./wire.js";
import { open } from "./net.js";

const LONGEST_SIDE = 640, QUALITY = 0.85;
const PAUSES_MS = [100, 200, 400, 800, 1600, 3000];

export class Tracker {
  constructor(video, told) {
    this.video = video;
    this.told = told; // { state(message, picture, roundTripMs), event(kind, message), problem(text) }
    this.small = document.createElement("canvas");
    this.session = null;
  }

  start(targets) {
    this.targets = targets;
    this.running = true;
    this.failures = 0;
    this.#connect();
  }

  stop() {
    this.running = false;
    clearTimeout(this.retry);
    if (this.socket?.readyState === WebSocket.OPEN) { this.socket.send(pack({ type: "bye" })); this.socket.close(); }
    this.socket = this.session = null;
  }

  #connect() {
    const socket = this.socket = open("/v1/track");
    this.id = 0;
    this.seen = -1;
    socket.onopen = () => socket.send(pack({
      type: "hello", protocol: 1, targets: this.targets, masks: "contours", deadline_ms: 10000,
      ...(this.session ? { session: this.session } : {}),
    }));
    socket.onmessage = (event) => this.#take(unpack(event.data));
    socket.onclose = (event) => {
      if (!this.running || socket !== this.socket) return;
      const final = event.code >= 4400 && event.code !== 4408 && event.code < 4500;
      if (final) { this.running = false; this.told.problem(event.reason || `closed with ${event.code}`); this.told.event("ended", {}); return; }
      this.told.event("away", {});
      this.retry = setTimeout(() => this.#connect(), PAUSES_MS[Math.min(this.failures++, PAUSES_MS.length - 1)]);
    };
  }

  #take(message) {
    if (message.type === "welcome") {
      this.session = message.session;
      this.failures = 0;
      this.told.event("welcome", message);
      this.#send();
    } else if (message.type === "resumed") this.told.event("resumed", message);
    else if (message.type === "error" && message.id === undefined) this.told.problem(message.reason);
    else if (message.id !== undefined) {
      this.seen = message.id;
      if (message.type === "state") this.told.state(message, this.picture, performance.now() - this.sentMs);
      else this.told.event(message.type, message);
      requestAnimationFrame(() => this.#send());
    }
  }

  async #send() {
    if (!this.running || this.socket?.readyState !== WebSocket.OPEN) return;
    const { videoWidth: width, videoHeight: height } = this.video;
    if (!width || this.video.readyState < 2) { setTimeout(() => this.#send(), 50); return; }
    const scale = Math.min(1, LONGEST_SIDE / Math.max(width, height));
    this.small.width = Math.round(width * scale);
    this.small.height = Math.round(height * scale);
    this.small.getContext("2d").drawImage(this.video, 0, 0, this.small.width, this.small.height);
    this.picture = await createImageBitmap(this.small);
    const blob = await new Promise((done) => this.small.toBlob(done, "image/jpeg", QUALITY));
    const jpeg = new Uint8Array(await blob.arrayBuffer());
    if (this.socket?.readyState !== WebSocket.OPEN) return;
    this.sentMs = performance.now();
    const captured_ns = BigInt(Math.round(performance.timeOrigin + this.sentMs)) * 1_000_000n;
    this.socket.send(pack({ type: "frame", id: this.id++, captured_ns, seen: this.seen, jpeg }));
  }
}
