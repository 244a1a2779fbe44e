// A wire with an ear: forwards every byte between Postern, the browser and an emulator, and notes what passed.
//
// It exists because the emulators keep no log that a test could assert on, and the canary must know the tokens they
// issue. It changes nothing, with one exception that a test has to ask for: `expiresIn(seconds)` rewrites the
// `expires_in` of token answers, since the emulators' tokens never end by themselves.
import { createServer, request as send } from 'node:http';

/** Listens on `port` and forwards to `upstream` (a port on loopback). */
export async function openTap({ port, upstream, onSecret = () => {} }) {
  const log = [];
  let expiresIn = null;
  const server = createServer(async (request, response) => {
    const body = await bytes(request);
    const path = new URL(request.url, 'http://tap').pathname;
    const form = /form-urlencoded/.test(request.headers['content-type'] ?? '') ? new URLSearchParams(body.toString('utf8')) : null;
    const entry = { method: request.method, path, names: form ? [...form.keys()] : [], grant_type: form?.get('grant_type') ?? null, status: null };
    log.push(entry);
    for (const name of ['code', 'code_verifier', 'refresh_token', 'token']) {
      const value = request.method === 'POST' && form?.get(name);
      if (value && value.length >= 16) onSecret(`a ${name} sent to ${path}`, value);
    }
    const [, bearer] = /^Bearer (.{16,})$/.exec(request.headers.authorization ?? '') ?? [];
    if (bearer) onSecret(`a bearer sent to ${path}`, bearer);
    const onward = send(
      { host: '127.0.0.1', port: upstream, method: request.method, path: request.url, headers: { ...request.headers, 'accept-encoding': 'identity' } },
      async (answer) => {
        let content = await bytes(answer);
        entry.status = answer.statusCode;
        const headers = { ...answer.headers };
        if (/json/.test(headers['content-type'] ?? '')) {
          const value = parse(content);
          note(value, path, onSecret);
          if (expiresIn !== null && value && typeof value.expires_in === 'number') {
            value.expires_in = expiresIn;
            content = Buffer.from(JSON.stringify(value));
            headers['content-length'] = String(content.length);
            delete headers['transfer-encoding'];
          }
          if (typeof value?.error === 'string') entry.error = value.error;
          if (typeof value?.scope === 'string') entry.scope = value.scope;
        }
        response.writeHead(answer.statusCode, headers);
        response.end(content);
      },
    );
    onward.on('error', () => {
      entry.status = 'no answer';
      response.destroy();
    });
    onward.end(body);
  });
  await new Promise((resolve, reject) => server.once('error', reject).listen(port, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    log,
    /** What passed to `path`, in order. */
    to: (path) => log.filter((entry) => entry.path === path),
    expiresIn(seconds) {
      expiresIn = seconds;
    },
    close: () => {
      server.closeAllConnections();
      return new Promise((done) => server.close(done));
    },
  };
}

function note(value, path, onSecret) {
  for (const holder of [value, value?.authed_user]) {
    for (const name of ['access_token', 'refresh_token', 'id_token']) {
      if (typeof holder?.[name] === 'string' && holder[name].length >= 16) onSecret(`a ${name} from ${path}`, holder[name]);
    }
  }
}

function parse(content) {
  try {
    return JSON.parse(content.toString('utf8'));
  } catch {
    return null;
  }
}

async function bytes(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return Buffer.concat(chunks);
}
