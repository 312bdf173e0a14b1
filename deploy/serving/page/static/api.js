// Asking the server. The token lives in this variable alone and is gone with the page.

let token = "";
export const useToken = (value) => { token = value; };

export class ServerError extends Error {
  constructor(status, message, fields) {
    super(message);
    this.status = status;
    this.fields = fields ?? [];
  }
}

async function call(path, options = {}) {
  const headers = { ...(options.headers ?? {}), ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  let answer;
  try {
    answer = await fetch(path, { ...options, headers, credentials: "omit", referrerPolicy: "no-referrer" });
  } catch {
    throw new ServerError(0, "The server does not answer: is it still running?");
  }
  if (answer.ok) return answer;
  let said = {};
  try {
    said = await answer.json();
  } catch { /* no JSON: something between us and the server answered */ }
  throw new ServerError(answer.status, said.error ?? `The server answered ${answer.status}.`, said.fields);
}

export const server = async () => (await call("/page/models")).json();

export const example = async (number) => (await call(`/page/examples/${number}`)).blob();

// The file goes as it is; its name stays here, the server learns its suffix alone.
export async function ask(model, file, options, explain, place) {
  const query = new URLSearchParams({ suffix: suffixOf(file.name) });
  for (const [name, value] of Object.entries(options)) if (value) query.set(name, value);
  if (explain) query.set("explain", explain);
  if (place !== "") query.set("place", place);
  const path = `/v2/models/${encodeURIComponent(model)}/ask?${query}`;
  const headers = { "Content-Type": "application/octet-stream" };
  let answer;
  try {
    answer = await call(path, { method: "POST", headers, body: file.content });
  } catch (error) {
    // Browsers send no file that was saved anew after it was chosen.
    if (error.status !== 0 || await readable(file.content)) throw error;
    throw new ServerError(0, `${file.name} has changed since it was chosen: choose it again`);
  }
  const found = await answer.json();
  found.image.values = floats(found.image);
  for (const map of Object.values(found.maps)) map.values = floats(map);
  return found;
}

export const suffixOf = (name) => (name.match(/\.[A-Za-z0-9]{1,8}$/)?.[0] ?? "").toLowerCase();

const readable = (content) => content.slice(0, 1).arrayBuffer().then(() => true, () => false);

function floats(array) {
  const text = atob(array.base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i += 1) bytes[i] = text.charCodeAt(i);
  const view = new DataView(bytes.buffer);
  return Float32Array.from({ length: bytes.length / 4 }, (_, i) => view.getFloat32(4 * i, true));
}
