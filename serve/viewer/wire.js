// Messages of the service: msgpack maps with arrays inside as {nd: [dtype, shape, bytes]}. The counterpart of robot/wire.py.
const TYPES = {
  "|b1": Uint8Array, "|u1": Uint8Array, "|i1": Int8Array, "<u2": Uint16Array, "<i2": Int16Array, "<u4": Uint32Array,
  "<i4": Int32Array, "<f4": Float32Array, "<f8": Float64Array, "<i8": BigInt64Array,
};
const utf8 = new TextEncoder(), text = new TextDecoder();

export function pack(value) {
  const parts = [];
  write(value, parts);
  return new Blob(parts);
}

function write(value, out) {
  if (value === null || value === undefined) out.push(bytes(0xc0));
  else if (value === true || value === false) out.push(bytes(value ? 0xc3 : 0xc2));
  else if (typeof value === "number" || typeof value === "bigint") out.push(number(value));
  else if (typeof value === "string") {
    const data = utf8.encode(value);
    out.push(sized(data.length, 0xd9, 0xda, 0xdb), data);
  } else if (value instanceof Uint8Array) out.push(sized(value.length, 0xc4, 0xc5, 0xc6), value);
  else if (Array.isArray(value)) {
    out.push(counted(value.length, 0xdc));
    for (const item of value) write(item, out);
  } else {
    const entries = Object.entries(value);
    out.push(counted(entries.length, 0xde));
    for (const [key, item] of entries) { write(key, out); write(item, out); }
  }
}

const bytes = (...values) => Uint8Array.from(values);

function number(value) {
  const view = new DataView(new ArrayBuffer(9));
  if (typeof value === "bigint" || Number.isSafeInteger(value)) { view.setUint8(0, 0xd3); view.setBigInt64(1, BigInt(value)); }
  else { view.setUint8(0, 0xcb); view.setFloat64(1, value); }
  return new Uint8Array(view.buffer);
}

function sized(length, one, two, four) {
  if (length < 256) return bytes(one, length);
  if (length < 65536) return bytes(two, length >> 8, length & 255);
  return bytes(four, length >>> 24, (length >> 16) & 255, (length >> 8) & 255, length & 255);
}

const counted = (length, two) => bytes(two, length >> 8, length & 255);

export function unpack(buffer) {
  const view = new DataView(buffer);
  let at = 0;
  const take = (count) => new Uint8Array(buffer, (at += count) - count, count);
  const uint = (count) => take(count).reduce((sum, byte) => sum * 256 + byte, 0);
  const int = (count) => { const value = uint(count); return value >= 2 ** (8 * count - 1) ? value - 2 ** (8 * count) : value; };
  const list = (count) => Array.from({ length: count }, read);
  const map = (count) => {
    const found = {};
    for (let i = 0; i < count; i++) { const key = read(); found[key] = read(); }
    return found.nd && Object.keys(found).length === 1 ? array(found.nd) : found;
  };
  function read() {
    const code = uint(1);
    if (code < 0x80) return code;
    if (code < 0x90) return map(code & 15);
    if (code < 0xa0) return list(code & 15);
    if (code < 0xc0) return text.decode(take(code & 31));
    if (code >= 0xe0) return code - 256;
    switch (code) {
      case 0xc0: return null;
      case 0xc2: return false;
      case 0xc3: return true;
      case 0xc4: return take(uint(1));
      case 0xc5: return take(uint(2));
      case 0xc6: return take(uint(4));
      case 0xca: at += 4; return view.getFloat32(at - 4);
      case 0xcb: at += 8; return view.getFloat64(at - 8);
      case 0xcc: return uint(1);
      case 0xcd: return uint(2);
      case 0xce: return uint(4);
      case 0xcf: return uint(8);
      case 0xd0: return int(1);
      case 0xd1: return int(2);
      case 0xd2: return int(4);
      case 0xd3: at += 8; return Number(view.getBigInt64(at - 8));
      case 0xd9: return text.decode(take(uint(1)));
      case 0xda: return text.decode(take(uint(2)));
      case 0xdb: return text.decode(take(uint(4)));
      case 0xdc: return list(uint(2));
      case 0xdd: return list(uint(4));
      case 0xde: return map(uint(2));
      case 0xdf: return map(uint(4));
      default: throw new Error(`msgpack code ${code}`);
    }
  }
  return read();
}

function array([dtype, shape, data]) {
  const values = new TYPES[dtype](data.slice().buffer);
  return { shape, values };
}
