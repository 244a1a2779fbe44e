// A client of Postern's API: no retries, redirects shown and not followed.
import { Agent, request } from 'node:http';

// Postern closes a connection that lay idle for 75 seconds; one that is given up sooner is never closed while it is being
// used again.
const connections = new Agent({ keepAlive: true, timeout: 30_000 });

export class Api {
  /** `host`: the address a proxy in front passes on, where it is not the one that is asked. */
  constructor(url, key, host) {
    this.url = url;
    this.key = key;
    this.host = host;
  }

  as(key) {
    return new Api(this.url, key);
  }

  /** One request; `{status, headers, body}`, the body parsed when it is JSON. */
  async call(method, path, body, headers = {}) {
    const sent = {
      method,
      headers: {
        ...(this.key ? { authorization: `Bearer ${this.key}` } : {}),
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        ...headers,
      },
      body: body === undefined ? undefined : JSON.stringify(body),
    };
    const url = new URL(path, this.url);
    // `fetch` lets nobody say another host.
    const answer = this.host ? await as(this.host, url, sent) : await fetch(url, { ...sent, redirect: 'manual' });
    const text = await answer.text();
    const type = answer.headers.get('content-type') ?? '';
    return { status: answer.status, headers: answer.headers, body: /json/.test(type) ? JSON.parse(text) : text };
  }

  get(path) {
    return this.call('GET', path);
  }

  post(path, body) {
    return this.call('POST', path, body);
  }

  /** One request that must answer `status`; its body. */
  async must(status, method, path, body) {
    const answer = await this.call(method, path, body);
    if (answer.status !== status) {
      throw new Error(`${method} ${path} answered ${answer.status}, not ${status}: ${JSON.stringify(answer.body).slice(0, 800)}`);
    }
    return answer.body;
  }

  async items(path) {
    return (await this.must(200, 'GET', path)).items;
  }
}

function as(host, url, { method, headers, body }) {
  return new Promise((resolve, reject) => {
    const asking = request(url, { agent: connections, method, headers: { ...headers, host, 'content-length': Buffer.byteLength(body ?? '') } }, async (answer) => {
      const chunks = [];
      for await (const chunk of answer) chunks.push(chunk);
      resolve(new Response(Buffer.concat(chunks), { status: answer.statusCode, headers: answer.headers }));
    });
    asking.once('error', reject);
    asking.end(body);
  });
}
