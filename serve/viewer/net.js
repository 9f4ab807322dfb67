// Requests and sockets, with the operator's token where one is needed. The token lives in this tab only.
const KEY = "reafference-token";
export const token = () => sessionStorage.getItem(KEY) || "";
export const keepToken = (value) => sessionStorage.setItem(KEY, value);

export async function ask(method, path, body, type) {
  const headers = token() ? { Authorization: `Bearer ${token()}` } : {};
  if (type) headers["Content-Type"] = type;
  const answer = await fetch(path, { method, headers, body });
  if (answer.status === 204) return null;
  const told = await answer.json().catch(() => ({ reason: answer.statusText }));
  if (!answer.ok) throw Object.assign(new Error(told.reason || answer.statusText), { status: answer.status });
  return told;
}

export function open(path) {
  const url = new URL(path, location.href);
  url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  const socket = new WebSocket(url, token() ? ["reafference", `bearer.${token()}`] : ["reafference"]);
  socket.binaryType = "arraybuffer";
  return socket;
}
